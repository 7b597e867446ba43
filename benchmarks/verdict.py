"""Question: does LoSA reach the accuracies of M14, and what does a recipe that nobody tunes cost?

Method: joins what ``python -m benchmarks tasks`` and ``python -m benchmarks online`` have written;
nothing is trained. Each statement is about test top-1 on the mean of its tasks, of which only those
count that both sides have; what is missing for the statement as it was meant is named beside it. A
statement about part of the tasks is no verdict on all of them.

Reported: value, standard error, target, and whether it is met, by statement. An error is that of a
difference of means over seeds; both sides are independent but for LoSA with and without tuning,
whose seeds are paired. The share of a gap has the error that its three means give it to first
order. Table on stderr and in ``benchmarks/results/verdict.md``; one JSON document as the last line
of stdout and in ``verdict.json``.

    python -m benchmarks verdict
    python -m benchmarks verdict --suite benchmarks/results/tasks.json
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks import record
from benchmarks.record import attach, note, publish
from benchmarks.sprites import TASKS as SPRITE_TASKS
from benchmarks.suite import Mean, standard_error
from benchmarks.tasks import DATA
from demo.command import program
from losa.errors import InputError
from losa.store.files import read_json

LARGEST: Final = 500_000
"""Trainable parameters that a cacheable network may have to be compared."""
SEEDS: Final = 3
SUITE: Final = tuple(DATA)
RENDERED: Final = tuple(SPRITE_TASKS)

Scores = Mapping[str, tuple[float, ...]]
"""Test top-1 by seed, by task."""


@dataclass(frozen=True, slots=True)
class Line:
    """One statement: shares of 1, ``error`` of ``value``; neither value nor ``hit`` if unknown."""

    name: str
    target: str
    value: float | None
    error: float | None
    hit: bool | None
    tasks: tuple[str, ...]
    missing: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measured:
    """What the two documents hold; ``online`` says why there is no full fine-tuning, if so."""

    adaptors: Mapping[str, Scores]
    parameters: Mapping[str, int]
    untuned: Scores
    settings: int
    full: Scores
    online: str = ""


@program
def main(argv: list[str]) -> int:
    """Join the documents, print the statements, and publish them; returns the exit code."""
    from losa.adapt.registry import ADAPTORS

    parser = argparse.ArgumentParser(prog="python -m benchmarks verdict")
    parser.add_argument("--suite", type=Path, default=record.RESULTS / "tasks.json")
    parser.add_argument("--online", type=Path, default=record.RESULTS / "online.json")
    options = parser.parse_args(argv)
    suite = document(options.suite, "tasks")
    online = document(options.online, "online") if options.online.exists() else None
    lines = verdict(measured(suite, online), tuple(ADAPTORS))
    told = markdown(lines)
    note(told)
    attach("verdict.md", f"{told}\n".encode())
    sources = {"tasks": suite, "online": online or {}}
    names = ("command", "commit", "machine")
    kept = {name: {n: one.get(n) for n in names} for name, one in sources.items() if one}
    publish("verdict", argv, {"sources": kept, "lines": [asdict(line) for line in lines]})
    return 0


def document(path: Path, name: str) -> dict[str, Any]:
    """What a benchmark has written.

    Raises:
        InputError: there is no such file, or it is of another benchmark.
    """
    if not path.is_file():
        raise InputError(path, "does not exist", f"run python -m benchmarks {name}")
    found = read_json(path)
    if found.get("benchmark") != name or not found.get("results"):
        raise InputError(path, f"holds no results of {name}", f"run python -m benchmarks {name}")
    return dict(found)


def measured(suite: Mapping[str, Any], online: Mapping[str, Any] | None) -> Measured:
    """Scores by adaptor and task, and those of full fine-tuning on pictures of the same size."""
    rows = suite["results"]
    names = dict.fromkeys(row["adaptor"] for row in rows)
    full: Scores = {}
    why = "" if online else "results of `online`"
    if online and online["img_size"] != suite["img_size"]:
        why = f"`online` at {suite['img_size']} px, not {online['img_size']}"
    elif online:
        full = _by_task(row for row in online["results"] if row["method"] == "full")
        why = "" if full else "full fine-tuning in `online`"
    losa = [row for row in rows if row["adaptor"] == "losa" and row.get("untuned_by_seed")]
    return Measured(
        {name: _by_task(row for row in rows if row["adaptor"] == name) for name in names},
        {n: max(row["trainable"] for row in rows if row["adaptor"] == n) for n in names},
        _by_task(losa, "untuned_by_seed"),
        len(suite["grid"]),
        full,
        why,
    )


def verdict(found: Measured, adaptors: Sequence[str]) -> list[Line]:
    """Every statement; ``adaptors`` are all that are to be compared."""
    return [
        best_mean(found, [name for name in adaptors if name != "losa"]),
        ahead(found, "linear", 0.3),
        ahead(found, "linear-all", 0.1),
        gap(found, 0.8),
        untuned(found, 0.01),
    ]


def best_mean(found: Measured, rivals: Sequence[str]) -> Line:
    """LoSA's mean against that of each rival of no more than half a million parameters."""
    losa = found.adaptors.get("losa", {})
    margins: dict[str, Any] = {}
    large = {n: count for n, count in found.parameters.items() if n in rivals and count > LARGEST}
    for name in rivals:
        scores = found.adaptors.get(name, {})
        tasks = _common(SUITE, losa, scores)
        if not tasks or name in large:
            continue
        ours, theirs = mean_of(losa, tasks), mean_of(scores, tasks)
        margins[name] = {
            "mean": theirs.top1,
            "losa": ours.top1,
            "margin": ours.top1 - theirs.top1,
            "error": _both(ours, theirs),
            "parameters": found.parameters[name],
            "tasks": tasks,
        }
    closest = min(margins, key=lambda name: margins[name]["margin"], default=None)
    absent = [name for name in rivals if name not in margins and name not in large]
    everywhere = _common(SUITE, losa, *(found.adaptors[name] for name in margins))
    missing = [*_absent(SUITE, everywhere), *(f"adaptor {name}" for name in absent)]
    missing += _seeds(losa, *(found.adaptors[name] for name in margins))
    if found.parameters.get("losa", 0) > LARGEST:
        missing.append(f"a LoSA of at most {LARGEST:,} parameters")
    best = margins[closest] if closest else {}
    return Line(
        f"LoSA against the best other adaptor ({closest or 'none measured'}), points",
        "above 0",
        best.get("margin"),
        best.get("error"),
        best["margin"] > 0 if closest else None,
        everywhere,
        tuple(missing),
        {"by_rival": margins, "above_parameters": large},
    )


def ahead(found: Measured, rival: str, target: float) -> Line:
    """How far LoSA is above a probe on the mean of the rendered tasks."""
    losa, theirs = found.adaptors.get("losa", {}), found.adaptors.get(rival, {})
    tasks = _common(RENDERED, losa, theirs)
    ours, other = mean_of(losa, tasks), mean_of(theirs, tasks)
    value = ours.top1 - other.top1 if tasks else None
    return Line(
        f"LoSA over {rival} on rendered tasks, points",
        f"{100 * target:.0f} or more",
        value,
        _both(ours, other),
        None if value is None else value >= target,
        tasks,
        (*_absent(RENDERED, tasks), *_seeds(losa, theirs)),
        {"by_task": {task: _difference(losa[task], theirs[task]) for task in tasks}},
    )


def gap(found: Measured, target: float) -> Line:
    """The share of what lies between the linear probe and full fine-tuning that LoSA closes.

    That of the means over tasks decides: on a task where the two are close, a share says little.
    """
    linear, losa = found.adaptors.get("linear", {}), found.adaptors.get("losa", {})
    tasks = _common(SUITE, linear, losa, found.full)
    three = [mean_of(scores, tasks) for scores in (linear, losa, found.full)]
    value, error = share_of(*three) if tasks else (None, None)
    closed = [] if value is not None or not tasks else ["full fine-tuning ahead of linear"]
    each = {}
    for task in tasks:
        means = [mean_of(scores, (task,)) for scores in (linear, losa, found.full)]
        share, own_error = share_of(*means)
        named = dict(zip(("linear", "losa", "full"), (one.top1 for one in means), strict=True))
        each[task] = {"share": share, "error": own_error, **named}
    shares = [one["share"] for one in each.values() if one["share"] is not None]
    return Line(
        "share of the gap from linear to full fine-tuning that LoSA closes",
        f"{target} or more",
        value,
        error,
        None if value is None else value >= target,
        tasks,
        (
            *filter(None, [found.online]),
            *closed,
            *_absent(SUITE, tasks),
            *_seeds(linear, losa, found.full),
        ),
        {"by_task": each, "mean_of_shares": statistics.fmean(shares) if shares else None},
    )


def untuned(found: Measured, target: float) -> Line:
    """What LoSA at its default setting loses to the setting that val chose for each task."""
    losa = found.adaptors.get("losa", {})
    tasks = _common(SUITE, losa, found.untuned) if found.settings > 1 else ()
    by_seed = [
        statistics.fmean(pair) for pair in zip(*(_loss(losa, found, t) for t in tasks), strict=True)
    ]
    value = statistics.fmean(by_seed) if tasks else None
    missing = [] if found.settings > 1 else ["a grid of more than the default setting"]
    return Line(
        "what the default setting loses to that chosen on val by task, points",
        f"at most {100 * target:.0f}",
        value,
        standard_error(by_seed),
        None if value is None else value <= target,
        tasks,
        (*missing, *_absent(SUITE, tasks), *_seeds(losa)),
        {"by_task": {task: statistics.fmean(_loss(losa, found, task)) for task in tasks}},
    )


def share_of(linear: Mean, losa: Mean, full: Mean) -> tuple[float | None, float | None]:
    """Share of a gap and its error to first order; none where there is no gap.

    Example:
        >>> share_of(Mean(0.5, 0.0), Mean(0.75, 0.25), Mean(1.0, 0.0))
        (0.5, 0.5)
    """
    width = full.top1 - linear.top1
    if width <= 0:
        return None, None
    share = (losa.top1 - linear.top1) / width
    if linear.error is None or losa.error is None or full.error is None:
        return share, None
    slopes = ((losa.top1 - full.top1) / width**2, 1 / width, -share / width)
    errors = (linear.error, losa.error, full.error)
    squares = sum((a * b) ** 2 for a, b in zip(slopes, errors, strict=True))
    return share, squares**0.5


def mean_of(scores: Scores, tasks: Sequence[str]) -> Mean:
    """Mean over tasks and seeds, and its error over seeds; NaN over no task."""
    by_seed = [
        statistics.fmean(seed) for seed in zip(*(scores[task] for task in tasks), strict=True)
    ]
    if not by_seed:
        return Mean(float("nan"), None)
    return Mean(statistics.fmean(by_seed), standard_error(by_seed))


def markdown(lines: Iterable[Line]) -> str:
    """The statements as a table, then each with its parts."""
    heading = ("statement", "target", "measured", "met", "over", "missing")
    rows = [_cells(line) for line in lines]
    parts = [_row(heading), "|-" * len(heading) + "|", *map(_row, rows)]
    for line in lines:
        for title in ("by_task", "by_rival"):
            if line.details.get(title):
                parts += ["", f"{line.name}:", *_parts(line.details[title])]
    return "\n".join(parts)


def _cells(line: Line) -> tuple[str, ...]:
    is_share = line.name.startswith("share")
    scale, digits = (1, 3) if is_share else (100, 2)
    told = "-" if line.value is None else f"{scale * line.value:.{digits}f}"
    if line.error is not None:
        told += f" ± {scale * line.error:.{digits}f}"
    met = {True: "yes", False: "no", None: "not measured"}[line.hit]
    if line.hit is not None and line.missing:
        met += ", in part"
    return line.name, line.target, told, met, ", ".join(line.tasks), "; ".join(line.missing)


def _parts(values: Mapping[str, Any]) -> list[str]:
    """A line a part: its numbers by name."""
    found = []
    for name, value in values.items():
        shown = value if isinstance(value, Mapping) else {"points": value}
        told = [f"{n} {one:.4f}" for n, one in shown.items() if isinstance(one, float)]
        found.append(f"- {name}: {', '.join(told) or '-'}")
    return found


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _by_task(rows: Iterable[Mapping[str, Any]], name: str = "test_by_seed") -> Scores:
    return {row["task"]: tuple(map(float, row[name])) for row in rows}


def _common(tasks: Sequence[str], *scores: Scores) -> tuple[str, ...]:
    return tuple(task for task in tasks if all(task in one for one in scores))


def _absent(wanted: Sequence[str], found: Sequence[str]) -> tuple[str, ...]:
    absent = [task for task in wanted if task not in found]
    return (f"{'tasks' if len(absent) > 1 else 'task'} {', '.join(absent)}",) if absent else ()


def _seeds(*scores: Scores) -> tuple[str, ...]:
    fewest = min((len(seeds) for one in scores for seeds in one.values()), default=SEEDS)
    return (f"{SEEDS} seeds, not {fewest}",) if fewest < SEEDS else ()


def _both(one: Mean, other: Mean) -> float | None:
    """Error of the difference of two independent means."""
    if one.error is None or other.error is None:
        return None
    return float((one.error**2 + other.error**2) ** 0.5)


def _difference(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return statistics.fmean(ours) - statistics.fmean(theirs)


def _loss(losa: Scores, found: Measured, task: str) -> list[float]:
    return [a - b for a, b in zip(losa[task], found.untuned[task], strict=True)]
