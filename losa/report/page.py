"""One page of a run or a sweep that needs nothing else: no network, no fonts, no script to load.

Its script sorts tables and ties plots to rows; without it everything is there as well. The same
files are the same page: no clock, no machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from losa.adapt.command import WINNER, adapt_command
from losa.report.axis import amount
from losa.report.curves import curves
from losa.report.heatmap import field_pairs, heatmap
from losa.report.markup import Node, node, source_digest, written
from losa.report.parallel import parallel
from losa.report.plots import Labels, Point, points
from losa.report.ranking import (
    COSTS,
    Cost,
    Criterion,
    Setting,
    criterion_of,
    front,
    settings_of,
    winner_of,
)
from losa.report.tables import config_table, costs_table, dropped_table, ranking_table, scores_table
from losa.report.trials import TRIALS, Found, Trial
from losa.version import __version__

MOST_POINTS: Final = 1000
"""More points of a front could not be told apart; the best on val are drawn."""

MOST_HEATMAPS: Final = 6


@dataclass(frozen=True, slots=True)
class Story:
    """What a page says: settings in their order, and the trial that won."""

    found: Found
    criterion: Criterion
    settings: tuple[Setting, ...]
    winner: Trial | None

    @property
    def command(self) -> str | None:
        """What trains the winner again; ``None`` where nothing was chosen."""
        path = self.found.path
        if self.found.kind == "run":
            return adapt_command(
                self.found.trials[0].config, path, path.with_name(f"{path.name}-2")
            )
        if self.winner is None:
            return None
        return adapt_command(self.winner.config, path / TRIALS / self.winner.name, path / WINNER)

    @property
    def dropped(self) -> list[Trial]:
        """Trials that could not be trained to their end."""
        return [one for one in self.found.trials if one.reason is not None and not one.is_left]

    @property
    def left_behind(self) -> list[Trial]:
        """Trials that successive halving stopped."""
        return [one for one in self.found.trials if one.is_left]


def story_of(found: Found) -> Story:
    """Put what was read in order."""
    criterion = criterion_of(found.trials)
    settings = settings_of(found.trials, criterion)
    return Story(found, criterion, settings, winner_of(settings, criterion))


def page_of(story: Story) -> str:
    """The page as HTML."""
    style, script = (_ours(name) for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; style-src {source_digest(style)}; script-src {source_digest(script)}"
    )
    title = f"{story.found.path.resolve().name}: losa report"
    head = node(
        "head",
        node("meta", charset="utf-8"),
        node("meta", http_equiv="Content-Security-Policy", content=policy),
        node("meta", name="viewport", content="width=device-width, initial-scale=1"),
        node("title", title),
        node("style", style),
    )
    body = node("body", *_header(story), *_sections(story), node("script", script))
    return f"<!doctype html>\n{written(node('html', head, body, lang='en'))}\n"


def _ours(name: str) -> str:
    return files("losa.report").joinpath(name).read_text(encoding="utf-8")


def _header(story: Story) -> Iterator[Node]:
    """What this is, and in a few figures what came out."""
    found = story.found
    yield node("h1", f"{found.kind} {found.path.resolve().name}")
    first = found.trials[0]
    known = [f"store {first.config.get('store', '?')}"]
    known += [f"backbone {first.backbone}"] if first.backbone else []
    if first.backbone_flops:
        known.append(f"{amount(first.backbone_flops, 'FLOPs')} a sample to the last tap")
    yield node("p", "; ".join(known), class_="soft")
    yield node("div", *_tiles(story), class_="panel tiles")
    if story.command is not None:
        what = "Train it again" if found.kind == "run" else "The winner's command"
        block = node("pre", node("code", story.command), class_="command")
        yield node("div", node("p", node("b", what)), block, class_="panel")


def _tiles(story: Story) -> Iterator[Node]:
    found, best = story.found, story.settings[0]
    key = story.criterion.key
    for split in ("val", "test"):
        score = best.score(split, key)
        if score is not None:
            text = f"{story.criterion.text(score.value, score.error)} {story.criterion.unit}"
            whose = "" if found.kind == "run" else " of the best on val"
            yield _tile(text, f"{split} {story.criterion.words}{whose}")
    if found.kind == "sweep":
        yield _tile(f"{len(found.trials):,}", "trials that ended")
        yield _tile(f"{len(story.settings):,}", "settings")
        if story.left_behind:
            yield _tile(f"{len(story.left_behind):,}", "left behind by halving")
        if story.dropped:
            yield _tile(f"{len(story.dropped):,}", "dropped")
        if found.unfinished:
            yield _tile(f"{found.unfinished:,}", "not ended yet")


def _tile(figure: str, words: str) -> Node:
    return node("div", node("b", figure), node("span", words))


def _sections(story: Story) -> Iterator[Node]:
    """The parts of the page that have something to say."""
    if story.found.kind == "sweep":
        yield node("h2", "Ranking")
        yield node("p", _how_ranked(story), class_="soft")
        yield ranking_table(story.settings, story.criterion)
    else:
        trial = story.found.trials[0]
        yield node("h2", "Metrics and costs")
        yield node("div", scores_table(trial), costs_table(trial), class_="tiles")
    for title, told, figures in (
        ("Learning", _how_learnt(story), curves(story.settings, story.criterion)),
        ("What was swept", "Shades and lines: the better on val, the stronger.", _swept(story)),
        ("What accuracy costs", _how_costs_are_read(story), _fronts(story)),
    ):
        if figures:
            yield node("h2", title)
            yield node("p", told, class_="soft")
            yield node("div", *figures, class_="figures")
    if story.dropped:
        yield node("h2", "Dropped")
        yield dropped_table(story.dropped)
    if story.found.kind == "run":
        fields = config_table(story.found.trials[0].config)
        yield node("details", node("summary", "its whole configuration"), fields)
    yield node("p", f"losa {__version__}", class_="soft")


def _how_ranked(story: Story) -> str:
    if story.winner is None:
        return "There is no val: nothing was chosen, and settings stand as they were found."
    best = "highest" if story.criterion.is_higher_better else "lowest"
    told = (
        f"By the {best} mean val {story.criterion.words}, ± one standard error over seeds; settings"
        " with a dropped trial stand behind the others. Test chooses nothing."
    )
    if story.left_behind:
        told += (
            " Those that halving left behind follow, who came further first, with val as it stood."
        )
    return told


def _how_learnt(story: Story) -> str:
    if story.found.kind == "run":
        return "Epoch by epoch, as metrics.jsonl has it."
    return "Means over the seeds of a setting, the best settings in colour."


def _how_costs_are_read(story: Story) -> str:
    """What the axes of the fronts hold, and what is not drawn because it never differs."""
    same = [
        f"{cost.words}: {amount(values[0], cost.unit)}"
        for cost in COSTS
        if len(set(values := _costs(story, cost))) == 1 and len(values) > 1
    ]
    told = (
        "Test, with one standard error over seeds; inference is the side network's, beside the"
        " backbone's. Choose by val: the best of many on test flatters itself."
    )
    return f"{told} The same for all that were tested: {'; '.join(same)}." if same else told


def _swept(story: Story) -> list[Node]:
    figures = [
        heatmap(story.settings, story.criterion, pair)
        for pair in field_pairs(story.settings)[:MOST_HEATMAPS]
    ]
    drawn = [each for each in figures if each is not None]
    across = parallel(story.settings, story.criterion)
    if across is not None:
        drawn.append(across)
    return drawn


def _fronts(story: Story) -> list[Node]:
    """A plot for each cost that differs among settings."""
    return [_front(story, cost) for cost in COSTS if len(set(_costs(story, cost))) > 1]


def _costs(story: Story, cost: Cost) -> list[float]:
    """What each setting with a test score costs."""
    scored = (one for one in story.settings if one.score("test", story.criterion.key))
    return [value for one in scored if (value := one.cost(cost)) is not None]


def _front(story: Story, cost: Cost) -> Node:
    criterion = story.criterion
    sign = 1.0 if criterion.is_higher_better else -1.0
    drawn: list[tuple[Setting, Any, float]] = []
    for setting in story.settings[:MOST_POINTS]:
        score, spent = setting.score("test", criterion.key), setting.cost(cost)
        if score is not None and spent is not None:
            drawn.append((setting, score, spent))
    best = set(front([(spent, sign * score.value) for _, score, spent in drawn]))
    unit = f" ({criterion.unit})" if criterion.unit else ""
    labels = Labels(f"test against {cost.words}", _axis_name(cost), f"test {criterion.words}{unit}",
                    cost.unit)  # fmt: skip
    return points(
        labels,
        [
            Point(
                spent,
                criterion.shown(score.value),
                None if score.error is None else criterion.shown(score.error),
                f"{setting.number}. {setting.name}: {criterion.text(score.value, score.error)},"
                f" {amount(spent, cost.unit)}",
                setting.number,
                at in best,
            )
            for at, (setting, score, spent) in enumerate(drawn)
        ],
    )


def _axis_name(cost: Cost) -> str:
    return f"{cost.words} ({cost.unit})" if cost.unit else cost.words
