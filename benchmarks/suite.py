"""What a suite of tasks comes to: one adaptor on one task, means over tasks, and their table."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """One adaptor on one task: accuracies in 0..1, seconds of one training run.

    ``commits`` are those at which the runs were trained that chose and made the figures;
    ``untuned_by_seed`` is test top-1 at the default setting, where that was measured.
    """

    task: str
    adaptor: str
    test_top1: float
    test_error: float | None
    val_top1: float
    trainable: int
    seconds: float
    store_bytes: int
    lr: float
    weight_decay: float
    test_by_seed: tuple[float, ...]
    commits: tuple[str, ...] = ()
    untuned_by_seed: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Mean:
    """Mean test top-1 over tasks and seeds, and its standard error over seeds."""

    top1: float
    error: float | None


def standard_error(values: Sequence[float]) -> float | None:
    """Standard error of a mean; a single value has none.

    Example:
        >>> standard_error([1.0, 3.0]), standard_error([1.0])
        (1.0, None)
    """
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None


def mean(results: Sequence[Result]) -> Mean:
    """What one adaptor reaches over tasks: each seed gives a mean over them.

    Example:
        >>> known = (0.0, 0.0, 0.9, 7, 1.0, 9, 0.1, 0.1)
        >>> mean([Result("a", "x", *known, (0.5, 1.0)), Result("b", "x", *known, (0.0, 0.5))])
        Mean(top1=0.5, error=0.25)
    """
    by_seed = [
        statistics.fmean(seed) for seed in zip(*(r.test_by_seed for r in results), strict=True)
    ]
    return Mean(statistics.fmean(by_seed), standard_error(by_seed))


def line(result: Result) -> str:
    """One result for people.

    Example:
        >>> line(Result("digits", "losa", 0.956, 0.002, 0.95, 41010, 20.0, 1, 2e-3, 1e-2, (0.956,)))
        'digits      losa              test 95.60 ± 0.20 %  val 95.00 %    41,010 parameters  20 s'
    """
    return (
        f"{result.task:11} {result.adaptor:17} test {_percent(result.test_top1, result.test_error)}"
        f"  val {100 * result.val_top1:5.2f} %  {result.trainable:8,} parameters"
        f"  {result.seconds:.0f} s"
    )


def adaptors_of(results: Sequence[Result]) -> list[str]:
    """Adaptors in the order in which they appear."""
    return list(dict.fromkeys(result.adaptor for result in results))


def tasks_of(results: Sequence[Result]) -> list[str]:
    """Tasks in the order in which they appear."""
    return list(dict.fromkeys(result.task for result in results))


def markdown(results: Sequence[Result], rendered: Collection[str]) -> str:
    """A table: an adaptor a row, best mean first; a task a column, then the means.

    The mean of the ``rendered`` tasks has a column where some but not all are such.
    """
    tasks = tasks_of(results)
    groups = {"all": tasks, "rendered": [task for task in tasks if task in rendered]}
    if len(groups["rendered"]) in (0, len(tasks)):
        del groups["rendered"]
    rows = []
    for adaptor in adaptors_of(results):
        of = {result.task: result for result in results if result.adaptor == adaptor}
        means = [mean([of[task] for task in group]) for group in groups.values()]
        cells = [_percent(of[task].test_top1, of[task].test_error) for task in tasks]
        cells += [_percent(one.top1, one.error) for one in means]
        most = max(result.trainable for result in of.values())
        rows.append((-means[0].top1, "| " + " | ".join([adaptor, *cells, f"{most:,}"]) + " |"))
    names = ["adaptor", *tasks, *(f"mean of {name}" for name in groups), "most parameters"]
    heading = ["| " + " | ".join(names) + " |", "|-" * len(names) + "|"]
    return "\n".join([*heading, *(row for _, row in sorted(rows))])


def _percent(share: float, error: float | None) -> str:
    return f"{100 * share:5.2f} ± {'-' if error is None else f'{100 * error:.2f}'} %"
