"""The record of a run: ``report.json``, from which every table is made.

``metrics`` holds fractions in 0..1 of the weights that val chose; or, where ``chosen_by`` says that
nothing did, of the last epoch's. ``memory.peak_bytes`` is the
highest anonymous resident memory seen at checkpoints and every few steps.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch

from losa.device import Compute
from losa.errors import StoreError
from losa.store.files import read_json, write_atomic
from losa.version import __version__

REPORT_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class AdaptReport:
    """What was asked, on which store, what came out, and what it cost."""

    config: Mapping[str, Any]
    store_id: str
    metrics: Mapping[str, Mapping[str, Any]]
    parameters: Mapping[str, int]
    timing: Mapping[str, Any]
    memory: Mapping[str, Any]
    environment: Mapping[str, Any]
    chosen_by: Literal["val", "nothing"] = "val"
    version: int = REPORT_VERSION

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, ``version`` first; ``chosen_by`` only where it was not val."""
        values = asdict(self)
        if self.chosen_by == "val":
            del values["chosen_by"]
        return {"version": values.pop("version"), **values}


def write_report(path: Path, report: AdaptReport) -> None:
    """Write ``report.json``, whole or not at all."""
    text = json.dumps(report.to_json(), indent=2, allow_nan=False)
    write_atomic(path, f"{text}\n".encode())


def read_report(path: Path) -> AdaptReport:
    """Read a ``report.json``.

    Raises:
        StoreError: it is missing, damaged, or of another version.
    """
    value = read_json(path)
    if value.get("version") != REPORT_VERSION:
        raise StoreError(
            path,
            f"has version {value.get('version')!r}; this losa reads version {REPORT_VERSION}",
            "use the losa that wrote it, or train again with --overwrite",
        )
    try:
        return AdaptReport(**value)
    except TypeError as error:
        raise StoreError(path, f"is not a report ({error})", "train again") from None


def environment(compute: Compute) -> dict[str, Any]:
    """What the figures depend on beside the configuration; nothing that names a person or host."""
    on_cuda = compute.device.type == "cuda"
    return {
        "losa": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": platform.system(),
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name(compute.device) if on_cuda else "cpu",
        "amp_dtype": compute.amp_dtype,
        "threads": torch.get_num_threads(),
    }
