"""What an ablation comes to: a variant on one task, and tables of what differs from the default."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.suite import Mean, standard_error

DEFAULT = "default"
ERRORS = 2.0
"""Standard errors beyond which a difference is marked."""

Split = Literal["val", "test"]


@dataclass(frozen=True, slots=True)
class Row:
    """One variant on one task: accuracies in 0..1 by seed, seconds of one training run.

    ``diverged`` names seeds whose runs have no weights: their accuracies count as zero.
    """

    task: str
    variant: str
    val_by_seed: tuple[float, ...]
    test_by_seed: tuple[float, ...]
    val_loss: float | None
    trainable: int
    seconds: float
    diverged: tuple[int, ...] = ()
    commits: tuple[str, ...] = ()

    def scores(self, split: Split) -> tuple[float, ...]:
        """Top-1 by seed of val or of test."""
        return self.val_by_seed if split == "val" else self.test_by_seed


def line(row: Row) -> str:
    """One row for people.

    Example:
        >>> line(Row("count", "rank: 2", (0.5,), (0.25,), 1.5, 21024, 3.0))
        'count       rank: 2                  val 50.00 ± - %  test 25.00 ± - %  21,024 parameters'
    """
    told = [f"{split} {_percent(mean(row.scores(split)))} %" for split in ("val", "test")]
    diverged = f"  diverged: seeds {row.diverged}" if row.diverged else ""
    parameters = f"{row.trainable:,} parameters"
    return f"{row.task:11} {row.variant:24} {'  '.join(told)}  {parameters}{diverged}"


def markdown(rows: Sequence[Row]) -> str:
    """Two tables, of val and of test: a variant a row, a task a column, then their mean."""
    parts = []
    for split in ("val", "test"):
        parts += [f"Top-1 of {split} (%), arrows where it differs from the default:", ""]
        parts += [_table(rows, split), ""]
    return "\n".join(parts).rstrip()


def mean(by_seed: Sequence[float]) -> Mean:
    """Mean over seeds and its standard error."""
    return Mean(statistics.fmean(by_seed), standard_error(by_seed))


def marked(found: Mean, default: Mean) -> Literal["", "↑", "↓"]:
    """An arrow where two means differ by more than two standard errors of their difference.

    Example:
        >>> marked(Mean(0.6, 0.03), Mean(0.5, 0.04)), marked(Mean(0.7, 0.03), Mean(0.5, 0.04))
        ('', '↑')
    """
    difference = found.top1 - default.top1
    if found.error is None or default.error is None:
        return ""
    if abs(difference) <= ERRORS * (found.error**2 + default.error**2) ** 0.5:
        return ""
    return "↑" if difference > 0 else "↓"


def _table(rows: Sequence[Row], split: Split) -> str:
    tasks = list(dict.fromkeys(row.task for row in rows))
    names = ["variant", *tasks, "mean", "to the default", "parameters", "seconds"]
    heading = [f"| {' | '.join(names)} |", "|-" * len(names) + "|"]
    default = _means(rows, DEFAULT, tasks, split)
    found = []
    for variant in dict.fromkeys(row.variant for row in rows):
        own = [row for row in rows if row.variant == variant]
        means = _means(rows, variant, tasks, split)
        pairs = zip(means, default, strict=True)
        cells = [f"{_percent(one)} {marked(one, other)}".strip() for one, other in pairs]
        cells += [f"{100 * (means[-1].top1 - default[-1].top1):+.2f}"]
        cells += [f"{max(row.trainable for row in own):,}"]
        cells += [f"{statistics.fmean(row.seconds for row in own):.0f}"]
        found.append(f"| {' | '.join([variant, *cells])} |")
    return "\n".join([*heading, *found])


def _means(rows: Sequence[Row], variant: str, tasks: Sequence[str], split: Split) -> list[Mean]:
    """Of every task, and of their mean, whose error is that of its own seeds."""
    of = {row.task: row.scores(split) for row in rows if row.variant == variant}
    by_seed = [statistics.fmean(seed) for seed in zip(*(of[task] for task in tasks), strict=True)]
    return [*(mean(of[task]) for task in tasks), mean(by_seed)]


def _percent(found: Mean) -> str:
    error = "-" if found.error is None else f"{100 * found.error:.2f}"
    return f"{100 * found.top1:.2f} ± {error}"
