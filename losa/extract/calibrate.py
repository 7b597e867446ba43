"""Statistics of every tap's channels over the first rows of a store, which are a random sample.

A store's row order is a seeded shuffle, so its first rows are the seeded sample that calibration
needs: the same on every machine, in every process, and after every interruption.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64
from torch import Tensor

from losa.errors import InputError, StoreError
from losa.features import FeatureSpec, StoreDtype
from losa.precision import channel_scales
from losa.store import files, layout

CHUNK: Final = 1 << 20
"""Features that are looked at together, in float64; of a larger sample, all of that one."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Per tap and channel, over tokens and samples, in true units: mean, population std, absmax."""

    mean: Float[np.ndarray, "k d"]
    std: Float[np.ndarray, "k d"]
    absmax: Float[np.ndarray, "k d"]

    def arrays(self, dtype: StoreDtype) -> dict[str, np.ndarray]:
        """The statistics by name, as a store of that dtype writes them."""
        found = {"mean": self.mean, "std": self.std, "absmax": self.absmax}
        if dtype == "int8":
            found["channel"] = channel_scales(self.std)
        return found


def stored_quantiser(path: Path, spec: FeatureSpec) -> Float32[np.ndarray, "k 2 d"] | None:
    """Mean and scale of each channel that a store was begun with; ``None`` but for int8.

    The store need not be sealed.

    Raises:
        StoreError: a file of them is missing, or is not what its spare copy is.
    """
    if spec.dtype != "int8":
        return None
    pairs = [[_statistic(path, spec, tap, name) for name in _QUANTISER] for tap in spec.taps]
    return np.array(pairs)


_QUANTISER: Final = ("mean", "channel")


def _statistic(path: Path, spec: FeatureSpec, tap: int, statistic: str) -> np.ndarray:
    name = layout.statistic_object(tap, statistic)
    data = files.read_file(path / name)
    # Nothing vouches for it before the seal does, and what is written next depends on it.
    is_sound = data == files.read_file(path / layout.spare_object(name))
    if len(data) != 4 * spec.channels or not is_sound:
        raise StoreError(path / name, "is not what its spare copy is", "use --overwrite")
    return np.frombuffer(data, dtype="<f4")


class Calibrator:
    """Accumulates statistics batch by batch in float64, merging by Chan's formula.

    Source: Chan, Golub, LeVeque (1983), pairwise update of mean and sum of squares.
    """

    def __init__(self, taps: int, channels: int) -> None:
        self._count = 0
        self._mean = torch.zeros(taps, channels, dtype=torch.float64)
        self._squares = torch.zeros(taps, channels, dtype=torch.float64)
        self._absmax = torch.zeros(taps, channels, dtype=torch.float64)
        self._parts = (self._mean, self._squares, self._absmax)

    def add(self, planes: Sequence[Float[Tensor, "b l d"]], readable: Bool[Tensor, "b"]) -> None:
        """Take in one batch; samples that could not be read are left out.

        Of a device's memory it takes some tens of megabytes, whatever the batch: a float64 copy of
        whole planes would be more than an extraction otherwise has there.
        """
        rows = readable.nonzero()[:, 0]
        tokens = planes[0].shape[1]
        step = max(1, CHUNK // planes[0][0].numel())
        for tap, plane in enumerate(planes):
            count, here = self._count, rows.to(plane.device)
            merged = [part[tap].to(plane.device) for part in self._parts]
            for first in range(0, len(rows), step):
                part = plane[here[first : first + step]].flatten(0, 1).double()
                merged = _merged(merged, count, part)
                count += len(part)
            for own, found in zip(self._parts, merged, strict=True):
                own[tap] = found.cpu()
        self._count += len(rows) * tokens

    def statistics(self) -> Statistics:
        """What was seen so far.

        Raises:
            InputError: no readable sample was seen, or a feature was not finite.
        """
        if self._count == 0:
            raise InputError("calibration", "no sample could be read", "check the data set")
        if not bool(torch.isfinite(self._absmax).all()):
            raise InputError(
                "calibration",
                "the backbone gives features that are not finite",
                "check the weights, or use --amp-dtype none",
            )
        std = (self._squares / self._count).sqrt()
        arrays = (item.numpy().astype(np.float32) for item in (self._mean, std, self._absmax))
        return Statistics(*arrays)


def _merged(
    before: Sequence[Float64[Tensor, "d"]], count: int, tokens: Float64[Tensor, "l d"]
) -> list[Float64[Tensor, "d"]]:
    """Mean, sum of squares and absmax of ``count`` tokens, joined by those of some more."""
    mean, squares, absmax = before
    total = count + len(tokens)
    low, high = tokens.aminmax(dim=0)
    own = tokens.mean(0)
    delta, spread = own - mean, (tokens - own).square_().sum(0)
    return [
        mean + delta * (len(tokens) / total),
        squares + spread + delta.square() * (count * len(tokens) / total),
        torch.maximum(absmax, torch.maximum(high, -low)),
    ]
