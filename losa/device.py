"""Which device a command computes on, and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch

from losa.errors import ResourceError, UsageError

AmpName = Literal["auto", "none", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True)
class Compute:
    """A device, and the dtype of autocast on it, if any."""

    device: torch.device
    amp: torch.dtype | None = None

    @property
    def amp_dtype(self) -> Literal["none", "bfloat16", "float16"]:
        """The name under which a configuration knows :attr:`amp`."""
        if self.amp is None:
            return "none"
        return "bfloat16" if self.amp == torch.bfloat16 else "float16"

    def autocast(self) -> AbstractContextManager[object]:
        """The context to run a forward in."""
        return torch.autocast(self.device.type, dtype=self.amp, enabled=self.amp is not None)


def resolve_compute(device: str, amp_dtype: AmpName) -> Compute:
    """The device and autocast dtype that ``auto`` stands for on this machine.

    ``auto`` is CUDA where there is one, else the CPU; and bfloat16 on CUDA, nothing on a CPU.

    Raises:
        UsageError: no device has that name.
        ResourceError: this machine has no such device.

    Example:
        >>> resolve_compute("cpu", "auto").amp_dtype
        'none'
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise UsageError("--device", f"{device!r} is unknown", "use auto, cpu, cuda or cuda:N")
    if found.type == "cuda" and not (found.index or 0) < torch.cuda.device_count():
        raise ResourceError(
            "--device", f"{device}: torch sees {torch.cuda.device_count()} CUDA devices", "use cpu"
        )
    if amp_dtype == "auto":
        amp_dtype = "bfloat16" if found.type == "cuda" else "none"
    amp = {"none": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[amp_dtype]
    return Compute(found, amp)
