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
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from losa.errors import InputError, StoreError
from losa.features import FeatureSpec, StoreDtype
from losa.precision import channel_scales
from losa.store import files, layout


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

    def add(self, planes: Sequence[Float[Tensor, "b l d"]], readable: Bool[Tensor, "b"]) -> None:
        """Take in one batch; samples that could not be read are left out."""
        if not bool(readable.any()):
            return
        added = 0
        for tap, plane in enumerate(planes):
            tokens = plane[readable.to(plane.device)].flatten(0, 1).double()
            added = len(tokens)
            mean = tokens.mean(0)
            squares = (tokens - mean).square().sum(0)
            total = self._count + added
            delta = mean.cpu() - self._mean[tap]
            self._mean[tap] += delta * (added / total)
            self._squares[tap] += squares.cpu() + delta.square() * (self._count * added / total)
            self._absmax[tap] = torch.maximum(self._absmax[tap], tokens.abs().amax(0).cpu())
        self._count += added

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
