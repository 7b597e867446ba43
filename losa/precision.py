"""Store dtypes on the torch side: encode before the copy to host, decode after the copy from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from losa.features import StoreDtype

FLOAT16_MAX: Final = 65504.0
FLOAT16_SAFE: Final = 2.0**14
TORCH_DTYPES: Final = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}


def exponent_for(absmax: float, dtype: StoreDtype) -> int:
    """Power of two a tap is divided by before a float16 cast: 0 unless its calibrated range is big.

    Two bits of head-room stay above the calibration's maximum. Scaling by a power of two is exact.

    Example:
        >>> exponent_for(900.0, "float16"), exponent_for(100_000.0, "float16")
        (0, 3)
    """
    if dtype != "float16" or absmax <= FLOAT16_SAFE:
        return 0
    return math.ceil(math.log2(absmax / FLOAT16_SAFE))


def encode(
    plane: Float[Tensor, "b l d"], dtype: StoreDtype, exponent: int = 0
) -> Shaped[Tensor, "b l d"]:
    """Cast a plane to the store's dtype, on its own device.

    bfloat16 comes back as its bits in int16, which numpy can hold.
    """
    scaled = plane.float() * 2.0**-exponent if exponent else plane
    stored = scaled.to(TORCH_DTYPES[dtype])
    return stored.view(torch.int16) if dtype == "bfloat16" else stored


def decode(
    raw: Shaped[Tensor, "k b l d"],
    dtype: StoreDtype,
    exponents: Sequence[int],
    to: torch.dtype = torch.float32,
) -> Float[Tensor, "k b l d"]:
    """Turn stored values back into features of dtype ``to``, on their own device."""
    stored = raw.view(torch.bfloat16) if dtype == "bfloat16" else raw
    planes = stored.to(to)
    if any(exponents):
        scales = [2.0**exponent for exponent in exponents]
        planes = planes * torch.tensor(scales, dtype=to, device=raw.device)[:, None, None, None]
    return planes


def magnitudes(
    plane: Float[Tensor, "b l d"], dtype: StoreDtype, exponent: int = 0
) -> Float[Tensor, "b"]:
    """Largest stored magnitude of each sample; ``inf`` or ``nan`` where it cannot be stored.

    One small vector, so that the check costs one copy to host a batch.
    """
    absmax = plane.abs().amax(dim=(1, 2)).float() * 2.0**-exponent
    if dtype == "float16":
        absmax = torch.where(absmax > FLOAT16_MAX, torch.inf, absmax)
    return absmax
