"""A run's or a sweep's files as trials: what was set, what came out, and what it cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from losa.adapt.checkpoint import CARD_NAME, load_card
from losa.adapt.rundir import CONFIG_NAME, METRICS_NAME, REPORT_NAME
from losa.errors import StoreError
from losa.report.flops import adaptor_flops, backbone_flops
from losa.store.files import read_file, read_json

TRIALS: Final = "trials"
RESULT_NAME: Final = "result.json"
MAX_CURVE_BYTES: Final = 1 << 28

Kind = Literal["run", "sweep"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One trained setting and seed; what its files do not say is ``None``.

    ``metrics`` are by split, ``curve`` has an entry an epoch, ``epochs`` is how many there were.
    ``reason`` says why it was not trained to its end: successive halving left it behind
    (``is_left``), or it was dropped.
    ``sample_bytes`` are those of one sample at the taps it reads, ``flops`` of one image through
    the adaptor, ``backbone_flops`` through the backbone to the last of these taps.
    """

    name: str
    config: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Any]]
    curve: tuple[Mapping[str, Any], ...] = ()
    reason: str | None = None
    is_left: bool = False
    epochs: int = 0
    backbone: str | None = None
    trainable: int | None = None
    seconds: float | None = None
    peak_bytes: int | None = None
    sample_bytes: int | None = None
    flops: int | None = None
    backbone_flops: int | None = None

    @property
    def seed(self) -> int:
        """The seed of its training."""
        return int(self.config.get("seed", 0))


@dataclass(frozen=True, slots=True)
class Found:
    """What lies in a folder; ``unfinished`` are trials that have begun and have no result yet."""

    kind: Kind
    path: Path
    trials: tuple[Trial, ...]
    unfinished: int = 0


class _Amounts(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    trainable: int | None = None
    seconds: float | None = None
    peak_bytes: int | None = None
    peak_device_bytes: int | None = None
    epochs: int | None = None


class _Record(BaseModel):
    """What ``report.json`` and ``result.json`` have in common."""

    model_config = ConfigDict(extra="ignore", strict=True)

    version: Literal[1]
    config: dict[str, Any]
    metrics: dict[str, dict[str, Any] | None] | None = None
    parameters: _Amounts | None = None
    timing: _Amounts | None = None
    memory: _Amounts | None = None
    status: Literal["complete", "stopped", "failed"] = "complete"
    epochs: int | None = None
    reason: str | None = None


def read_folder(path: Path) -> Found:
    """Read the run or the sweep at ``path``: its small files, no weights and no store.

    Raises:
        StoreError: there is neither, nothing has ended there yet, or a file is damaged.
    """
    if (path / TRIALS).is_dir():
        return _sweep(path)
    if not (path / CONFIG_NAME).is_file():
        raise StoreError(path, "is neither a run nor a sweep", "give the folder of one")
    if not (path / REPORT_NAME).is_file():
        raise StoreError(path, "has not ended yet", "go on with the same losa adapt")
    return Found("run", path, (read_trial(path, path / REPORT_NAME),))


def _sweep(path: Path) -> Found:
    trials, unfinished = [], 0
    for folder in sorted(each for each in (path / TRIALS).iterdir() if each.is_dir()):
        names = (RESULT_NAME, REPORT_NAME)
        record = next((folder / name for name in names if (folder / name).is_file()), None)
        if record is None:
            unfinished += 1
        else:
            trials.append(read_trial(folder, record))
    if not trials:
        raise StoreError(path, "has no trial that has ended", "go on with the same losa sweep")
    return Found("sweep", path, tuple(trials), unfinished)


def read_trial(folder: Path, record: Path) -> Trial:
    """One trial from its record, and from the card and the curve beside it if they are there.

    Raises:
        StoreError: one of these files is damaged or of another version.
    """
    try:
        found = _Record.model_validate(read_json(record))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise StoreError(record, f"{place}: {first['msg']}", "train again") from None
    nothing = _Amounts()
    memory = found.memory or nothing
    facts: dict[str, Any] = {}
    if (folder / CARD_NAME).is_file():
        card = load_card(folder)
        facts = {
            "backbone": str(card.backbone.get("model", card.spec.backbone)),
            "sample_bytes": card.spec.sample_bytes,
            "flops": adaptor_flops(card),
            "backbone_flops": backbone_flops(card),
        }
    return Trial(
        name=folder.name,
        config=found.config,
        metrics={name: scores for name, scores in (found.metrics or {}).items() if scores},
        curve=_curve(folder / METRICS_NAME),
        reason=found.reason,
        is_left=found.status == "stopped",
        epochs=found.epochs or (found.timing or nothing).epochs or 0,
        trainable=(found.parameters or nothing).trainable,
        seconds=(found.timing or nothing).seconds,
        peak_bytes=memory.peak_device_bytes or memory.peak_bytes,
        **facts,
    )


def _curve(path: Path) -> tuple[Mapping[str, Any], ...]:
    """The lines of ``metrics.jsonl``; one that a dying process left incomplete ends it."""
    if not path.is_file():
        return ()
    lines = []
    for line in read_file(path, at_most=MAX_CURVE_BYTES).splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            break
        if not isinstance(value, dict):
            raise StoreError(path, "has a line that is no JSON object", "train again")
        lines.append(value)
    return tuple(lines)
