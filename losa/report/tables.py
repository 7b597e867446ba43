"""The tables of a page, and the same figures as CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from losa.adapt.predictions import csv_of
from losa.report.axis import amount
from losa.report.heatmap import words
from losa.report.markup import Node, add, node
from losa.report.ranking import COSTS, Criterion, Setting, is_number, shown
from losa.report.trials import Trial


def ranking_table(settings: Sequence[Setting], criterion: Criterion) -> Node:
    """A row a setting: its values, seeds, means with standard errors, and costs."""
    fields = list(settings[0].values)
    unit = f", {criterion.unit}" if criterion.unit else ""
    scores = [f"{split} {criterion.key}{unit}" for split in ("val", "test")]
    costs = [cost.words for cost in COSTS]
    heads = ["", *map(words, fields), "seeds", *scores, "val loss", *costs]
    body = node("tbody")
    for setting in settings:
        row = node("tr", data_setting=setting.number)
        if setting.number == 1 and setting.score("val", criterion.key) is not None:
            row.set("class", "best")
        add(row, _number(setting.number, str(setting.number)))
        add(row, *(_value(setting.values[field]) for field in fields))
        add(row, _number(len(setting.whole), _seeds(setting)))
        for split, key in (("val", criterion.key), ("test", criterion.key), ("val", "loss")):
            score = setting.score(split, key)
            text = None if score is None else criterion.text(score.value, score.error)
            if score is not None and key == "loss":
                text = f"{score.value:.4f}"
            add(row, _number(None if score is None else score.value, text))
        for cost in COSTS:
            spent = setting.cost(cost)
            add(row, _number(spent, None if spent is None else amount(spent, cost.unit)))
        add(body, row)
    return _scrolled(heads, body)


def scores_table(trial: Trial) -> Node:
    """A row a metric, a column a split."""
    body = node("tbody")
    keys = {key: None for scores in trial.metrics.values() for key in scores}
    for key in keys:
        found = [scores.get(key) for scores in trial.metrics.values()]
        if any(is_number(value) for value in found):
            add(body, node("tr", node("td", words(key)), *map(_score, found)))
    return _scrolled(["", *trial.metrics], body, kind="scroll narrow")


def costs_table(trial: Trial) -> Node:
    """A row a cost that is known."""
    body = node("tbody")
    for cost in COSTS:
        spent = cost.get(trial)
        if spent is not None:
            add(body, node("tr", node("td", cost.words), _number(spent, amount(spent, cost.unit))))
    return _scrolled(["", "cost"], body, kind="scroll narrow")


def config_table(config: Mapping[str, Any]) -> Node:
    """A row a field of a configuration."""
    body = node("tbody")
    for name, value in config.items():
        add(body, node("tr", node("td", words(name)), node("td", shown(value), class_="long")))
    return _scrolled(["field", "value"], body, kind="scroll narrow")


def dropped_table(trials: Sequence[Trial]) -> Node:
    """A row a trial that was dropped, and why."""
    body = node("tbody")
    for trial in trials:
        cells = [trial.name, str(trial.seed), str(trial.epochs)]
        reason = node("td", trial.reason, class_="long")
        add(body, node("tr", *(node("td", cell) for cell in cells), reason))
    return _scrolled(["trial", "seed", "epochs", "why"], body)


def trials_csv(settings: Sequence[Setting]) -> bytes:
    """A line a trial, in the order of the settings: values, seed, metrics, costs, reason."""
    fields = list(settings[0].values)
    keys = {
        f"{split}_{key}": (split, key)
        for setting in settings
        for trial in setting.trials
        for split, scores in trial.metrics.items()
        for key, value in scores.items()
        if is_number(value)
    }
    header = ("setting", *fields, "seed", *keys, *(cost.key for cost in COSTS), "reason", "trial")
    rows = [
        (
            setting.number,
            *(setting.values[field] for field in fields),
            trial.seed,
            *(trial.metrics.get(split, {}).get(key, "") for split, key in keys.values()),
            *("" if (spent := cost.get(trial)) is None else spent for cost in COSTS),
            trial.reason or "",
            trial.name,
        )
        for setting in settings
        for trial in setting.trials
    ]
    return csv_of(header, rows)


def _seeds(setting: Setting) -> str:
    whole, every = len(setting.whole), len(setting.trials)
    if not whole and any(trial.is_left for trial in setting.trials):
        return f"left at epoch {max(trial.epochs for trial in setting.trials)}"
    return str(every) if whole == every else f"{whole} of {every}"


def _value(value: object) -> Node:
    if is_number(value):
        return _number(value, shown(value))
    return node("td", shown(value))


def _score(value: object) -> Node:
    if not is_number(value):
        return _number(None, None)
    return _number(value, f"{value:,}" if isinstance(value, int) else f"{value:.4f}")


def _number(value: int | float | None, text: str | None) -> Node:
    """A cell that sorts by its value, not by its text."""
    return node("td", text or "-", class_="number", data_sort="" if value is None else value)


def _scrolled(heads: Sequence[str], body: Node, kind: str = "scroll") -> Node:
    """A table that scrolls by itself where it is wider than the page."""
    first: Sequence[Node] = list(body[0]) if len(body) else []
    kinds = [cell.get("class") for cell in first] or [None] * len(heads)
    cells = [
        node("th", head, scope="col", class_=kind) for head, kind in zip(heads, kinds, strict=True)
    ]
    table = node("table", node("thead", node("tr", *cells)), body)
    table.set("class", "sortable")
    return node("div", table, class_=kind, tabindex=0)
