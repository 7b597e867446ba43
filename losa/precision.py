"""Store dtypes on the torch side: encode before the copy to host, decode after the copy from it.

int8 is ``round((x - mean) / (scale * channel))``: a mean and a scale of each channel, which
calibration fixes for the whole store, and a scale that every token brings along. Both of a channel
travel as one array, the tap's quantiser ``[2 d]``: means, then scales.
Source: docs/decisions/0007-int8-channel-scale.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Float16, Float32, Int8, Shaped
from torch import Tensor

from losa.features import StoreDtype

FLOAT16_MAX: Final = 65504.0
FLOAT16_SAFE: Final = 2.0**14
FLOAT16_TINY: Final = 2.0**-14
"""Smallest float16 of full precision, and smallest scale of a token: it divides no feature by 0."""

INT8_MAX: Final = 127
TORCH_DTYPES: Final = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """A plane as the store holds it; ``scales`` are those of its tokens, of int8 alone."""

    values: Shaped[Tensor, "b l d"]
    scales: Float16[Tensor, "b l"] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class EncodedPlanes:
    """Planes of a batch as the store holds them; whoever iterates gets them decoded, one by one.

    What can compute with the stored values takes ``values``, which times ``token_scales`` and
    :meth:`gain` are the features less :meth:`shift`, and so does without the decoded planes.
    """

    raw: Shaped[Tensor, "k b l d"]
    dtype: StoreDtype
    exponents: tuple[int, ...]
    token_scales: Float16[Tensor, "k b l"] | None = None
    quantiser: Float32[Tensor, "k 2 d"] | None = None

    def __iter__(self) -> Iterator[Float[Tensor, "b l d"]]:
        """Decoded planes in depth order."""
        for tap in range(len(self.raw)):
            only = slice(tap, tap + 1)
            scales = None if self.token_scales is None else self.token_scales[only]
            quantiser = None if self.quantiser is None else self.quantiser[only]
            yield decode(
                *(self.raw[only], self.dtype, self.exponents[only]),
                scales=scales,
                quantiser=quantiser,
            )[0]

    def decoded(self) -> Float[Tensor, "k b l d"]:
        """All planes at once."""
        return torch.stack(list(self))

    @property
    def values(self) -> tuple[Shaped[Tensor, "b l d"], ...]:
        """The stored numbers, plane by plane, uncopied."""
        stored = self.raw.view(torch.bfloat16) if self.dtype == "bfloat16" else self.raw
        return stored.unbind()

    def gain(self) -> Float32[Tensor, "k d"]:
        """What the channels of a value are multiplied by."""
        if self.quantiser is not None:
            return self.quantiser[:, 1]
        shape, device = (self.raw.shape[-1],), self.raw.device
        # Filled, not copied to the device, which would wait for it.
        return torch.stack([torch.full(shape, 2.0**e, device=device) for e in self.exponents])

    def shift(self) -> Float32[Tensor, "k d"]:
        """What is added to the channels after that."""
        if self.quantiser is not None:
            return self.quantiser[:, 0]
        return torch.zeros(len(self.raw), self.raw.shape[-1], device=self.raw.device)


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


def channel_scales(std: Float32[np.ndarray, "k d"]) -> Float32[np.ndarray, "k d"]:
    """What int8 divides each channel by: its calibrated standard deviation.

    A channel that hardly varies gets a thousandth of its tap's median, so that what it holds in
    other samples than calibration's does not coarsen its neighbours.

    Example:
        >>> channel_scales(np.float32([[1, 2, 0]])).tolist()
        [[1.0, 2.0, 0.0010000000474974513]]
    """
    floor = np.maximum(1e-3 * np.median(std, axis=1, keepdims=True), 1e-6)
    floored: Float32[np.ndarray, "k d"] = np.maximum(std, floor).astype(np.float32)
    return floored


def encode(
    plane: Float[Tensor, "b l d"],
    dtype: StoreDtype,
    exponent: int = 0,
    quantiser: Float32[Tensor, "2 d"] | None = None,
) -> Encoded:
    """Turn a plane into what the store holds, on its own device.

    bfloat16 comes back as its bits in int16, which numpy can hold. int8 needs the tap's
    ``quantiser``.
    """
    if dtype == "int8":
        assert quantiser is not None
        mean, channel = quantiser
        return _quantised((plane.float() - mean).div_(channel))
    scaled = plane.float() * 2.0**-exponent if exponent else plane
    stored = scaled.to(TORCH_DTYPES[dtype])
    return Encoded(stored.view(torch.int16) if dtype == "bfloat16" else stored)


def decode(
    raw: Shaped[Tensor, "k b l d"],
    dtype: StoreDtype,
    exponents: Sequence[int],
    to: torch.dtype = torch.float32,
    *,
    scales: Float16[Tensor, "k b l"] | None = None,
    quantiser: Float32[Tensor, "k 2 d"] | None = None,
) -> Float[Tensor, "k b l d"]:
    """Turn stored values back into features of dtype ``to``, on their own device.

    int8 needs the ``scales`` of the tokens and the taps' ``quantiser``.
    """
    if dtype == "int8":
        assert scales is not None
        assert quantiser is not None
        return _dequantised(raw, scales, quantiser).to(to)
    stored = raw.view(torch.bfloat16) if dtype == "bfloat16" else raw
    planes = stored.to(to)
    if any(exponents):
        powers = [2.0**exponent for exponent in exponents]
        planes = planes * torch.tensor(powers, dtype=to, device=raw.device)[:, None, None, None]
    return planes


def rounded_to(
    dtype: StoreDtype,
    plane: Float[Tensor, "b l d"],
    exponent: int = 0,
    quantiser: Float32[Tensor, "2 d"] | None = None,
) -> tuple[Float[Tensor, "b l d"], Float[Tensor, "b"]]:
    """A plane as it comes back from a store of that dtype, and what :func:`magnitudes` says."""
    found = encode(plane, dtype, exponent, quantiser)
    scales = None if found.scales is None else found.scales[None]
    each = None if quantiser is None else quantiser[None]
    back = decode(found.values[None], dtype, (exponent,), scales=scales, quantiser=each)[0]
    return back, magnitudes(plane, found, exponent)


def magnitudes(
    plane: Float[Tensor, "b l d"], encoded: Encoded, exponent: int = 0
) -> Float[Tensor, "b"]:
    """Largest stored magnitude of each sample; ``inf`` or ``nan`` where it cannot be stored.

    One small vector, so that the check costs one copy to host a batch. Of int8 the largest scale
    says it, which is there already.
    """
    if encoded.scales is not None:
        return encoded.scales.amax(dim=1).float()
    flat = plane.flatten(1)
    # Both ends, not the magnitudes: these would be a plane of their own, and six times the time.
    absmax = torch.maximum(flat.amax(1), -flat.amin(1)).float() * 2.0**-exponent
    if encoded.values.dtype == torch.float16:
        absmax = torch.where(absmax > FLOAT16_MAX, torch.inf, absmax)
    return absmax


def _quantised(scaled: Float32[Tensor, "b l d"]) -> Encoded:
    """Values of a plane whose channels are scaled already, and the scale of each token.

    The scale is what the largest value needs, rounded up to float16, so that 127 is enough.
    """
    low, high = scaled.aminmax(dim=-1)
    # Times, not divided by: for a constant, devices differ in how they divide.
    need = torch.maximum(high, -low) * (1 / INT8_MAX)
    nearest = need.to(torch.float16)
    # Of positive floats the next one up has the next bit pattern; after the last comes infinity.
    above = (nearest.view(torch.int16) + 1).view(torch.float16)
    scales = torch.where(nearest.float() < need, above, nearest).clamp_min(FLOAT16_TINY)
    values = (scaled / scales.float()[..., None]).round_().clamp_(-INT8_MAX, INT8_MAX)
    return Encoded(values.to(torch.int8), scales)


def _dequantised(
    raw: Int8[Tensor, "k b l d"],
    scales: Float16[Tensor, "k b l"],
    quantiser: Float32[Tensor, "k 2 d"],
) -> Float32[Tensor, "k b l d"]:
    mean, channel = quantiser[:, None, None].unbind(-2)
    planes = raw.to(torch.float32)
    planes *= scales.float()[..., None]
    return torch.addcmul(mean, planes, channel, out=planes)
