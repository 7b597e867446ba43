"""What stands around a frozen network's forward, of images and of clips: scaling and autocast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from losa.errors import ResourceError
from losa.extract.transforms import Preprocessing


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """From 8-bit pixels, channels last, to what weights expect, channels first, on a device."""

    mean: Float[Tensor, "3"]
    std: Float[Tensor, "3"]

    @classmethod
    def on(cls, device: torch.device, preprocessing: Preprocessing) -> Scaling:
        """The scaling of a preprocessing."""
        mean, std = preprocessing.mean, preprocessing.std
        return cls(torch.tensor(mean, device=device), torch.tensor(std, device=device))

    def __call__(self, pixels: UInt8[Tensor, "b ... 3"]) -> Float[Tensor, "b 3 ..."]:
        """Pixels of images or of clips as the weights expect them."""
        moved = pixels.to(self.mean.device, non_blocking=True).movedim(-1, 1)
        floats = moved.to(torch.float32, memory_format=torch.contiguous_format)
        each = (3, *[1] * (pixels.ndim - 2))
        return floats.div_(255).sub_(self.mean.view(each)).div_(self.std.view(each))


def casting(device: torch.device, amp_dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    """Autocast on a device, where it was asked for."""
    return nullcontext() if amp_dtype is None else torch.autocast(device.type, dtype=amp_dtype)


@contextmanager
def compiling(*, is_compiled: bool) -> Iterator[None]:
    """Say of a compiler that fails what may be left away.

    Raises:
        ResourceError: it failed.
    """
    if not is_compiled:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        reason = " ".join(str(error).split())[:120]
        raise ResourceError("--compile", f"failed ({reason})", "leave it away") from None
