"""The result of a trial: one create-once file, from which every table of a sweep is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from losa.adapt.choice import Standing, standing
from losa.adapt.report import AdaptReport
from losa.errors import StoreError
from losa.store.files import canonical_json, read_json
from losa.sweep.trials import SweepTrial

RESULT_VERSION: Final = 1
Status = Literal["complete", "stopped", "failed"]


@dataclass(frozen=True)
class TrialResult:
    """What came out of a trial and what it cost.

    ``stopped`` are those that successive halving left behind: they have metrics of val, as they
    stood then, and none of test. ``failed`` are those with a reason instead of metrics.
    """

    digest: str
    status: Status
    config: Mapping[str, Any]
    store_id: str
    metrics: Mapping[str, Mapping[str, Any]]
    parameters: Mapping[str, int]
    timing: Mapping[str, Any]
    memory: Mapping[str, Any]
    epochs: int
    reason: str | None = None
    version: int = RESULT_VERSION

    def to_bytes(self) -> bytes:
        """The file's bytes."""
        return canonical_json(vars(self))

    @property
    def standing(self) -> Standing:
        """How good it is on val."""
        return standing(self.metrics["val"])


def best_of_curve(curve: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The metrics of val of the best epoch so far."""
    found: list[Mapping[str, Any]] = [line["val"] for line in curve if line.get("val")]
    return max(found, key=standing)


def result_of(trial: SweepTrial, store_id: str, report: AdaptReport) -> TrialResult:
    """The result of a trial that was trained to its end."""
    metrics = {
        split: {name: value for name, value in values.items() if name != "confusion"}
        for split, values in report.metrics.items()
    }
    return TrialResult(
        digest=trial.digest,
        status="complete",
        config=trial.config.model_dump(mode="json"),
        store_id=store_id,
        metrics=metrics,
        parameters=report.parameters,
        timing=report.timing,
        memory=report.memory,
        epochs=int(report.timing["epochs"]),
    )


def failure_of(trial: SweepTrial, store_id: str, reason: str, epochs: int) -> TrialResult:
    """The result of a trial that could not be trained: why."""
    blank = TrialResult(trial.digest, "failed", {}, store_id, {}, {}, {}, {}, epochs, reason)
    return replace(blank, config=trial.config.model_dump(mode="json"))


def stop_of(trial: SweepTrial, store_id: str, mark: Mapping[str, Any]) -> TrialResult:
    """The result of a trial that successive halving leaves behind."""
    reason = f"left behind by halving after epoch {mark['epochs']}"
    return replace(
        failure_of(trial, store_id, reason, int(mark["epochs"])),
        status="stopped",
        metrics={"val": mark["val"]},
        parameters=mark["parameters"],
    )


def read_result(path: Path) -> TrialResult:
    """Read a result.

    Raises:
        StoreError: it is missing, damaged, or of another version.
    """
    todo = "remove it, and the same command trains the trial again"
    value = read_json(path)
    if value.get("version") != RESULT_VERSION:
        what = f"has version {value.get('version')!r}; this losa reads version {RESULT_VERSION}"
        raise StoreError(path, what, "use the losa that wrote it")
    try:
        return TrialResult(**value)
    except TypeError as error:
        raise StoreError(path, f"is not a result ({error})", todo) from None
