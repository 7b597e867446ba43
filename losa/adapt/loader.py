"""Batches of a split in an order that is a function of the seed and the epoch alone.

A shuffled epoch shows every sample once: of several views that a store has of it, one. The order
does not depend on threads, and a resume seeks to its batch: nothing is replayed. The last, partial
batch of an epoch is kept, in training as in evaluation, so that every sample is seen.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from losa.adapt.ring import BatchSource, FeatureBatch
from losa.adapt.source import RowReader
from losa.adapt.views import ViewDraw
from losa.errors import InputError
from losa.precision import EncodedPlanes, decode
from losa.store.order import EpochOrder


class FeatureLoader:
    """Chosen rows of a split, batch by batch, through a ring that other loaders may share.

    Shuffled rows must be ascending. Where they are several views of a sample, each epoch draws one.

    Raises:
        InputError: a row lies outside the split.
    """

    def __init__(
        self,
        split: RowReader,
        rows: Int64[np.ndarray, "n"],
        ring: BatchSource,
        *,
        seed: int = 0,
        shuffle: bool = False,
    ) -> None:
        if len(rows) and not (rows.min() >= 0 and rows.max() < split.rows):
            raise InputError("rows", f"lie outside the split's {split.rows}", "name rows it has")
        self.split = split
        self.rows = rows
        self.ring = ring
        self._seed = seed
        self._draw = ViewDraw(split, rows, seed) if shuffle else None

    @property
    def samples(self) -> int:
        """Rows of one epoch."""
        return len(self.rows) if self._draw is None else self._draw.samples

    @property
    def steps(self) -> int:
        """Batches of one epoch, the last and partial one included."""
        return -(-self.samples // self.ring.options.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Generator[FeatureBatch, None, None]:
        """Batches of an epoch from batch ``start`` on: the loader's rows, shuffled or as given.

        A batch lives until the next one is asked for. A second call ends the first one's batches.
        """
        order = None
        if self._draw is not None:
            order = EpochOrder(self._draw.rows(epoch), self._seed, epoch)
        batches = self.ring.batches(self.split, self._slices(order, start))
        # Only now: what was asked for before reads no more.
        first = start * self.ring.options.batch_size
        self.split.follow(order, self.ring.spec.taps, first)
        return batches

    def planes(self, batch: FeatureBatch) -> EncodedPlanes:
        """The planes of a batch as they are stored; they live as long as the batch."""
        ring = self.ring
        return EncodedPlanes(
            *(batch.features, ring.spec.dtype, tuple(ring.exponents), batch.scales, ring.quantiser)
        )

    def decode(
        self, batch: FeatureBatch, to: torch.dtype = torch.float32
    ) -> Float[Tensor, "k b l d"]:
        """The planes of a batch in the dtype to compute with; lives as long as the batch."""
        ring = self.ring
        return decode(
            *(batch.features, ring.spec.dtype, ring.exponents, to),
            scales=batch.scales,
            quantiser=ring.quantiser,
        )

    def _slices(self, order: EpochOrder | None, start: int) -> Iterator[Int64[np.ndarray, "b"]]:
        size = self.ring.options.batch_size
        for first in range(start * size, self.samples, size):
            stop = first + size
            yield self.rows[first:stop] if order is None else order.part(first, stop)
