"""Which setting is best, chosen on val over its seeds; test is only reported."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from operator import itemgetter
from statistics import fmean, stdev
from typing import Any, Final

from losa.adapt.choice import Repetition, best_of, order_of, setting_key
from losa.config import AdaptConfig
from losa.sweep.results import TrialResult

FACTS: Final = ("number", "digest", "status", "epochs", "parameters", "seconds")
NOT_METRICS: Final = ("rows", "skipped")


@dataclass(frozen=True)
class Setting:
    """The trials of one setting that were trained to their end, which of them is best on val."""

    results: tuple[TrialResult, ...]
    best: TrialResult

    def summary(self, split: str) -> dict[str, dict[str, float | None]]:
        """Of each metric of a split the mean over seeds and its standard error, if there are two.

        Source: ``s / sqrt(m)`` of m trials, ``s`` the standard deviation of a sample (m - 1).
        """
        found: dict[str, dict[str, float | None]] = {}
        for name in _numbers(self.results[0].metrics.get(split, {})):
            values = [float(result.metrics[split][name]) for result in self.results]
            error = stdev(values) / sqrt(len(values)) if len(values) > 1 else None
            found[name] = {"mean": fmean(values), "standard_error": error}
        return found


def ranked(results: Sequence[TrialResult]) -> list[Setting]:
    """The settings with a trial trained to its end, the best on val first."""
    groups: dict[bytes, list[TrialResult]] = {}
    for result in results:
        groups.setdefault(setting_key(result.config), []).append(result)
    found = []
    for group in groups.values():
        trials = [repetition_of(result) for result in group]
        best = best_of(trials)
        if best is not None:
            complete = {one.digest: one for one in group if one.status == "complete"}
            setting = Setting(tuple(complete.values()), complete[best.name])
            found.append((order_of(trials), setting))
    return [setting for _, setting in sorted(found, key=itemgetter(0))]


def repetition_of(result: TrialResult) -> Repetition:
    """A result as a choice sees it."""
    return Repetition(
        name=result.digest,
        val=result.metrics.get("val", {}),
        seed=int(result.config.get("seed", 0)),
        is_whole=result.status == "complete",
        epochs=result.epochs,
        trainable=result.parameters.get("trainable", 0),
    )


def varied(results: Sequence[TrialResult]) -> list[str]:
    """The fields in which the trials of a sweep differ, in the configuration's order."""
    names = [name for name in AdaptConfig.model_fields if name != "out"]
    return [
        name
        for name in names
        if len({json.dumps(result.config.get(name)) for result in results}) > 1
    ]


def table_bytes(results: Sequence[TrialResult]) -> bytes:
    """``results.csv``: a line a trial, in the order of the sweep, whoever trained them when."""
    fields = varied(results)
    metrics = {
        f"{split}_{name}": (split, name)
        for result in results
        for split in ("val", "test")
        for name in _numbers(result.metrics.get(split, {}))
    }
    columns = [*sorted(metrics, key=lambda column: column.startswith("test_"))]
    out = io.StringIO(newline="")
    write = csv.writer(out, lineterminator="\n").writerow
    write([*FACTS, "peak_bytes", "peak_device_bytes", *fields, *columns, "reason"])
    for number, result in enumerate(results):
        facts = (number, result.digest, result.status, result.epochs)
        cost = (result.parameters.get("trainable"), result.timing.get("seconds"))
        memory = (result.memory.get("peak_bytes"), result.memory.get("peak_device_bytes"))
        own = [result.config.get(name) for name in fields]
        values = [result.metrics.get(s, {}).get(n) for s, n in map(metrics.__getitem__, columns)]
        cells = (*facts, *cost, *memory, *own, *values, result.reason)
        write(["" if cell is None else cell for cell in cells])
    return out.getvalue().encode()


def _numbers(values: Mapping[str, Any]) -> list[str]:
    return [
        name
        for name, value in values.items()
        if isinstance(value, int | float) and name not in NOT_METRICS
    ]
