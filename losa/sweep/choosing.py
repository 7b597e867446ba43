"""Which setting is best, chosen on val over its seeds; test is only reported."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Final

from losa.config import AdaptConfig
from losa.sweep.results import TrialResult

UNGROUPED: Final = ("seed", "out")
"""Fields in which trials of one setting differ."""

WITHOUT_FLAG: Final = ("clip", "warmup_epochs", "read_threads", "prefetch", "checkpoint_seconds")
"""Fields that ``losa adapt`` takes from a file alone."""

FACTS: Final = ("number", "digest", "status", "epochs", "parameters", "seconds")
NOT_METRICS: Final = ("rows", "skipped")


@dataclass(frozen=True)
class Setting:
    """The trials of one setting that were trained to their end, and how many failed."""

    results: tuple[TrialResult, ...]
    failed: int = 0

    @property
    def order(self) -> tuple[float, ...]:
        """How good the setting is on val; what fails for a seed is behind all that does not."""
        score, loss = (fmean(values) for values in zip(*self._standings, strict=True))
        cost = self.results[0].parameters.get("trainable", 0)
        return (-float(self.failed), score, loss, -float(cost))

    @property
    def best(self) -> TrialResult:
        """The trial that val likes most."""
        return max(self.results, key=lambda result: result.standing)

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

    @property
    def _standings(self) -> list[tuple[float, float]]:
        return [result.standing for result in self.results]


def ranked(results: Sequence[TrialResult]) -> list[Setting]:
    """The settings with a trial trained to its end, the best on val first."""
    groups: dict[str, list[TrialResult]] = {}
    for result in results:
        values = {name: v for name, v in result.config.items() if name not in UNGROUPED}
        groups.setdefault(json.dumps(values, sort_keys=True), []).append(result)
    found = []
    for group in groups.values():
        complete = tuple(result for result in group if result.status == "complete")
        if complete:
            failed = sum(result.status == "failed" for result in group)
            found.append(Setting(complete, failed))
    return sorted(found, key=lambda setting: setting.order, reverse=True)


def command_of(config: Mapping[str, Any]) -> str:
    """The command that trains a trial again, in a folder of its own.

    Example:
        >>> command_of(AdaptConfig(store=Path("s.zarr"), rank=4).model_dump(mode="json"))
        'losa adapt --store s.zarr --rank 4'
    """
    default = AdaptConfig().model_dump(mode="json")
    changed = {
        name: value
        for name, value in config.items()
        if name not in ("out", "store") and value != default.get(name)
    }
    words = ["losa", "adapt", "--store", str(config["store"])]
    # A file says what no flag can: some fields have none, and a flag cannot say "none at all".
    if any(name in WITHOUT_FLAG or value is None for name, value in changed.items()):
        run = Path(str(config["out"]))
        again = run.parent.parent / f"again-{run.name}"
        return shlex.join([*words, "--config", str(run / "config.yaml"), "--out", str(again)])
    for name, value in changed.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        else:
            words += [flag, str(value)]
    return shlex.join(words)


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
