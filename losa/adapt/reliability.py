"""Whether what is said with probability p is right p of the time: ECE, Brier score, reliability.

Everything is of the predicted class's probability, its *confidence*, over readable rows. The
negative log-likelihood, the third of the usual figures, is the ``loss`` of :mod:`metrics`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

BINS: Final = 15
"""Bins of most papers since Guo et al. (arXiv 1706.04599)."""

_UNIT: Final = 1 << 30
"""Confidences are summed as whole multiples of 2**-30: no order of adding changes the sum."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows of one range of confidence, ``lower`` excluded; without any, both means are zero."""

    lower: float
    upper: float
    rows: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """Confidence against accuracy, bin by bin."""

    bins: tuple[Bin, ...]
    brier: float

    @property
    def ece(self) -> float:
        """Expected calibration error: mean of ``|accuracy - confidence|`` over bins, by rows.

        Source: Guo et al. (arXiv 1706.04599), equation 3.
        """
        rows = sum(one.rows for one in self.bins)
        gaps = sum(one.rows * abs(one.accuracy - one.confidence) for one in self.bins)
        return gaps / rows if rows else 0.0


class ReliabilitySums:
    """Running sums of a split's reliability; nothing is read back before :meth:`reliability`."""

    def __init__(self, device: torch.device | str = "cpu", bins: int = BINS) -> None:
        self._bins = bins
        # Of each bin: its rows, those that are right, and their confidence in units.
        self._sums = torch.zeros(bins, 3, dtype=torch.int64, device=device)
        self._brier = torch.zeros((), dtype=torch.float64, device=device)

    def add(self, logits: Float[Tensor, "b y"], labels: Int64[Tensor, "b"]) -> None:
        """Count one batch.

        The Brier score is the squared distance of the probabilities from the one-hot label, 0..2.
        Source: Brier (1950), equation 2.
        """
        shares = logits.double().softmax(1)
        # Of the logits, as the metrics have it: rounding makes some of their probabilities equal.
        confidence, best = shares.amax(1), logits.argmax(1)
        # A bin holds its upper edge: (m - 1) / M < confidence <= m / M.
        place = (confidence * self._bins).ceil().long().sub(1).clamp(0, self._bins - 1)
        units = (confidence * _UNIT).round().long()
        facts = torch.stack([torch.ones_like(labels), (best == labels).long(), units], dim=1)
        self._sums.index_add_(0, place, facts)
        said = shares.gather(1, labels[:, None])[:, 0]
        self._brier += (shares.square().sum(1) - 2 * said + 1).sum()

    def reliability(self) -> Reliability:
        """The reliability so far."""
        bins = tuple(self._each_bin(self._sums.tolist()))
        rows = sum(one.rows for one in bins)
        return Reliability(bins, float(self._brier) / rows if rows else 0.0)

    def _each_bin(self, sums: list[list[int]]) -> Iterator[Bin]:
        for number, (rows, right, units) in enumerate(sums):
            edges = number / self._bins, (number + 1) / self._bins
            whole = rows or 1
            yield Bin(*edges, rows, units / _UNIT / whole, right / whole)


def equal_mass_ece(
    confidence: Float32[np.ndarray, "n"], right: Bool[np.ndarray, "n"], bins: int = BINS
) -> float:
    """ECE over bins of equally many rows: most confidences of a good network crowd below 1.

    Rows of one confidence count as their mean, so that their order does not matter.

    Source: adaptive calibration error, Nixon et al. (arXiv 1904.01685), of the predicted class
    alone.

    Example:
        >>> equal_mass_ece(np.array([0.6, 0.8], dtype=np.float32), np.array([True, True]), bins=1)
        0.3
    """
    if not len(right):
        return 0.0
    each, place, rows = np.unique(confidence, return_inverse=True, return_counts=True)
    accuracy = np.bincount(place, weights=right) / rows
    gaps = np.repeat(accuracy - each, rows)
    pieces = np.array_split(gaps, min(bins, len(gaps)))
    total = sum(abs(float(piece.sum())) for piece in pieces)
    return round(total / len(gaps), 7)
