"""What a run has cost so far: time, samples and memory, summed over its resumes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

STATUS = Path("/proc/self/status")

Clock = Callable[[], float]
"""Seconds since some moment; those of a cohort's clock are shared out among its trials."""


def anonymous_bytes() -> int | None:
    """Memory of this process that no file backs (RssAnon), where the system tells it.

    Pages of the store that are mapped or cached are not ours, and are not counted.
    """
    with suppress(OSError):
        for line in STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return None


class Usage:
    """A clock and two gauges; :meth:`sample` is called now and then, never within a step."""

    def __init__(
        self,
        device: torch.device,
        before: Mapping[str, Any] | None = None,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        before = before or {}
        self._device = device
        self._seconds: float = before.get("seconds", 0.0)
        self._clock = clock
        self._since = clock()
        self.train_seconds: float = before.get("train_seconds", 0.0)
        self.samples: int = before.get("samples", 0)
        self._peak_bytes: int | None = before.get("peak_bytes")
        self._peak_device_bytes: int | None = before.get("peak_device_bytes")

    @property
    def seconds(self) -> float:
        """Wall time of the whole run: reading, training, validation, checkpoints."""
        return self._seconds + self._clock() - self._since

    def sample(self) -> None:
        """Look at the memory now; peaks are the highest seen, not the highest there was."""
        found = anonymous_bytes()
        if found is not None:
            self._peak_bytes = max(found, self._peak_bytes or 0)
        if self._device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self._device)
            self._peak_device_bytes = max(peak, self._peak_device_bytes or 0)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values to continue from."""
        return {
            "seconds": self.seconds,
            "train_seconds": self.train_seconds,
            "samples": self.samples,
            **self.memory(),
        }

    def timing(self, epochs: int) -> dict[str, Any]:
        """The ``timing`` of a report; samples a second are those of training alone."""
        rate = self.samples / self.train_seconds if self.train_seconds else 0.0
        return {"seconds": self.seconds, "samples_per_second": rate, "epochs": epochs}

    def memory(self) -> dict[str, Any]:
        """The ``memory`` of a report; ``None`` where there is no such memory or no gauge."""
        return {"peak_bytes": self._peak_bytes, "peak_device_bytes": self._peak_device_bytes}
