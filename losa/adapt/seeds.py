"""Several runs that differ in their seed alone: the mean of each metric and its standard error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Final

from losa.adapt.checkpoint import load_card
from losa.adapt.rundir import comparable, effective, load_config
from losa.adapt.scoresheet import Table
from losa.errors import MismatchError, UsageError
from losa.store.plan import differing_fields

SHARED: Final = ("store_id", "dataset", "split", "views")
"""Facts of a result that are the same for all runs."""

COUNTS: Final = ("rows", "skipped")
"""Numbers of a result that are no metrics."""


def check_seeds(runs: Sequence[Path]) -> tuple[int, ...]:
    """Make sure that runs are repetitions of one setting; returns their seeds.

    Raises:
        StoreError: a run is missing or damaged.
        MismatchError: they differ in more than the seed; the fields are named.
        UsageError: two have the same seed.
    """
    found = [_setting(run) for run in runs]
    for (run, (_, setting)), (other, (_, others)) in pairwise(zip(runs, found, strict=True)):
        fields = list(differing_fields(setting, others))
        if fields:
            raise MismatchError(
                "--run",
                f"{run} and {other} differ in more than the seed: {', '.join(fields)}",
                "give runs of one setting, or evaluate them one by one",
            )
    seeds = tuple(seed for seed, _ in found)
    for place, seed in enumerate(seeds):
        if seed in seeds[:place]:
            first = runs[seeds.index(seed)]
            what = f"{first} and {runs[place]} have the same seed {seed}"
            raise UsageError("--run", what, "error bars come from runs of different seeds")
    return seeds


@dataclass(frozen=True, slots=True)
class SeedSummary:
    """Results of several runs of one setting: mean and standard error of every metric."""

    seeds: tuple[int, ...]
    results: tuple[Mapping[str, Any], ...]

    @property
    def result(self) -> dict[str, Any]:
        """What is printed and handed on, as plain JSON values."""
        first = self.results[0]
        facts = {name: first[name] for name in SHARED if name in first}
        without = {*SHARED, "confusion"}
        runs = [{k: v for k, v in one.items() if k not in without} for one in self.results]
        return {**facts, "seeds": list(self.seeds), **summary(self.results), "runs": runs}

    def tables(self) -> Iterator[Table]:
        """One table: a line a metric."""
        found = summary(self.results)
        errors = found["standard_error"]
        rows = [
            (name, f"{mean:.4f}", f"{errors[name]:.4f}") for name, mean in found["mean"].items()
        ]
        yield list(rows), (f"{len(self.seeds)} seeds", "mean", "standard error")


def summary(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Of two results or more the mean of each metric, and the standard error of that mean.

    Source: ``s / sqrt(m)`` of m runs, with ``s`` the standard deviation of a sample (m - 1).

    Example:
        >>> summary([{"top1": 0.5, "rows": 9}, {"top1": 0.75, "rows": 9}])
        {'mean': {'top1': 0.625}, 'standard_error': {'top1': 0.125}}
    """
    names = [
        name
        for name in results[0]
        if name not in COUNTS and all(_is_number(result.get(name)) for result in results)
    ]
    columns = {name: [float(result[name]) for result in results] for name in names}
    return {
        "mean": {name: fmean(values) for name, values in columns.items()},
        "standard_error": {
            name: stdev(values) / sqrt(len(values)) for name, values in columns.items()
        },
    }


def _setting(run: Path) -> tuple[int, dict[str, Any]]:
    """The seed of a run, and all else that decides its result."""
    card = load_card(run)
    config = effective(load_config(run), card.spec.taps, card.task)
    values = comparable(config, card.store_id, card.targets)
    return values.pop("seed"), values


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
