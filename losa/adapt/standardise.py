"""Planes enter a side network standardised per tap and channel, by statistics of the store."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from losa.adapt.folding import FoldedPlanes
from losa.errors import MismatchError
from losa.features import FeatureSpec
from losa.precision import EncodedPlanes

SMALLEST_STD = 1e-6
SMALLEST_SHARE = 1e-3
"""A channel's standard deviation counts as at least this share of its tap's median one.

A dead channel would otherwise turn one rounding step of a float16 store into thousands.
"""


class Standardise(nn.Module):
    """``(plane - mean) / std`` per tap and channel; the identity until statistics are loaded.

    The statistics are buffers, so that a checkpoint carries them and needs no store.
    """

    mean: Float[Tensor, "k d"]
    std: Float[Tensor, "k d"]

    def __init__(self, spec: FeatureSpec) -> None:
        super().__init__()
        taps, _, channels = spec.shape
        self.register_buffer("mean", torch.zeros(taps, channels))
        self.register_buffer("std", torch.ones(taps, channels))

    def load(
        self,
        mean: Float[Tensor, "..."] | Float[np.ndarray, "..."],
        std: Float[Tensor, "..."] | Float[np.ndarray, "..."],
    ) -> None:
        """Take over a store's statistics, with dead channels' deviations floored.

        Raises:
            MismatchError: they are not of shape ``[k d]``, not finite, or a deviation is negative.
        """
        # Copied, because a store's statistics may be read-only.
        found = [
            (value if isinstance(value, Tensor) else torch.tensor(value)).to(self.mean)
            for value in (mean, std)
        ]
        for name, value in zip(("mean", "std"), found, strict=True):
            if value.shape != self.mean.shape:
                raise MismatchError(
                    f"calibration {name}",
                    f"shape {tuple(value.shape)} where the taps need {tuple(self.mean.shape)}",
                    "load the statistics of the same taps",
                )
            if not bool(value.isfinite().all()) or (name == "std" and bool((value < 0).any())):
                raise MismatchError(
                    f"calibration {name}", "has values that are no statistics", "extract again"
                )
        floor = found[1].median(dim=1, keepdim=True).values * SMALLEST_SHARE
        self.mean.copy_(found[0])
        self.std.copy_(found[1].maximum(floor).clamp_min(SMALLEST_STD))

    def by_tap(self) -> None:
        """Make of the statistics one scale a tap, and subtract nothing.

        The scale is the root mean square of the deviations of a tap's channels. What is left are
        the channels' means, which mixers without biases need (docs/decisions/0017), and what their
        deviations say of their weight in the backbone.
        """
        self.mean.zero_()
        self.std.copy_(self.std.square().mean(dim=1, keepdim=True).sqrt().expand_as(self.std))

    def forward(self, plane: Float[Tensor, "b l d"], position: int) -> Float[Tensor, "b l d"]:
        """Standardise the plane of the tap at ``position`` among the spec's taps."""
        scale = self.std[position].reciprocal()
        # One pass over the plane: (plane - mean) / std == shift + plane * scale.
        return torch.addcmul(-self.mean[position] * scale, plane, scale)

    def folded(
        self,
        planes: tuple[Shaped[Tensor, "b l d"], ...],
        encoded: EncodedPlanes | None,
        compute: torch.dtype,
    ) -> FoldedPlanes:
        """The planes as they are, with the gain and shift that decode and standardise them."""
        scale = self.std.reciprocal()
        if encoded is None:
            return FoldedPlanes(planes, scale, -self.mean * scale, compute)
        gain = encoded.gain() * scale
        shift = (encoded.shift() - self.mean) * scale
        return FoldedPlanes(planes, gain, shift, compute, encoded.token_scales)


def checked_planes(
    planes: Iterable[Shaped[Tensor, "b l d"]], spec: FeatureSpec
) -> tuple[Shaped[Tensor, "b l d"], ...]:
    """One plane a tap, from a list of live planes or a stacked ``[k b l d]`` tensor, uncopied.

    Raises:
        MismatchError: the number of planes, or a plane's tokens or channels, is not the spec's.
    """
    found = tuple(planes)
    count, *shape = spec.shape
    if len(found) != count:
        raise MismatchError(
            "planes", f"{len(found)} given for {count} taps", f"give taps {spec.taps}"
        )
    for plane, tap in zip(found, spec.taps, strict=True):
        if list(plane.shape[1:]) != shape:
            raise MismatchError(
                f"plane of tap {tap}",
                f"has {list(plane.shape[1:])} tokens and channels, the spec {shape}",
                "use the backbone, image size and tokens policy that the adaptor was built for",
            )
    return found
