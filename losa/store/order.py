"""The order of rows: once for the store, and for every epoch, from seeds alone.

Both are pure functions of their arguments. They rest on Philox's raw output, whose stream numpy
keeps for ever, and a stable sort; not on ``Generator.permutation``, whose stream may change.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt64

BLOCK_ROWS = 64
WINDOW_BLOCKS = 8


class RowPlaces(NamedTuple):
    """Of each row of a split: the position of its sample in the listing, and which view it is."""

    source_index: Int64[np.ndarray, "n"]
    view: Int64[np.ndarray, "n"]


def row_order(samples: int, seed: int, split: str) -> Int64[np.ndarray, "n"]:
    """Data-set position of each row of a split: the global shuffle, paid once at writing time."""
    return _permutation(samples, seed, int.from_bytes(hashlib.sha256(split.encode()).digest()[:8]))


def row_places(samples: int, views: int, seed: int, split: str) -> RowPlaces:
    """What each row of a split is, where every sample has so many views.

    All views of all samples are shuffled together, so that any run of rows is a random sample of
    both.

    Source: docs/store-format.md, section "Sample columns and row order".

    Example:
        >>> row_places(2, 2, 0, "train")
        RowPlaces(source_index=array([1, 0, 0, 1]), view=array([0, 1, 0, 1]))
    """
    view, source_index = np.divmod(row_order(samples * views, seed, split), samples)
    return RowPlaces(source_index, view)


def view_draw(samples: int, seed: int, epoch: int) -> UInt64[np.ndarray, "n"]:
    """A number for each listed sample, of which the view that it shows in an epoch follows."""
    # The third word of the counter: no shuffle of rows or blocks gets there.
    return _words(samples, seed, 2 * epoch, (0, 0, 1, 0))


def epoch_order(
    rows: Int64[np.ndarray, "n"],
    seed: int,
    epoch: int,
    block: int = BLOCK_ROWS,
    window: int = WINDOW_BLOCKS,
) -> Int64[np.ndarray, "n"]:
    """The rows in the order of one epoch; see :class:`EpochOrder`, whose whole this is.

    Example:
        >>> order = epoch_order(np.arange(1000), seed=0, epoch=3)
        >>> sorted(order.tolist()) == list(range(1000))
        True
    """
    return EpochOrder(rows, seed, epoch, block, window).part(0, len(rows))


class EpochOrder:
    """The order of one epoch: blocks of rows are permuted, then rows within windows of blocks.

    Neighbouring rows stay near each other in time, so that a store larger than memory is read in
    long runs, while a window mixes ``block * window`` rows; the store's own order is random. A
    window is worked out when it is asked for: to begin anywhere costs the same as at the start.

    Source: CorgiPile (arXiv 2206.05830), with the offline shuffle of Corgi^2 (arXiv 2309.01640).

    Args:
        rows: the rows of the epoch, ascending.
        seed: of the run; with ``epoch`` it decides the order.
        epoch: counted from zero.
        block: rows that stay together.
        window: blocks that are mixed with each other.
    """

    def __init__(
        self,
        rows: Int64[np.ndarray, "n"],
        seed: int,
        epoch: int,
        block: int = BLOCK_ROWS,
        window: int = WINDOW_BLOCKS,
    ) -> None:
        self.rows = rows
        self._seed = seed
        self._epoch = epoch
        self._block = block
        self._window = window
        blocks = -(-len(rows) // block)
        self._shuffled = _permutation(blocks, seed, 2 * epoch)
        self.windows = -(-blocks // window)
        # The last block may be short, and so may the one window that it has got into.
        self._lacking = blocks * block - len(rows)
        place = np.flatnonzero(self._shuffled == blocks - 1)
        self._short = int(place.sum()) // window
        self._latest: tuple[int, Int64[np.ndarray, "n"]] = (-1, rows[:0])

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, start: int, stop: int) -> Int64[np.ndarray, "b"]:
        """The rows at positions ``start`` to ``stop`` of the epoch."""
        stop = min(stop, len(self.rows))
        pieces = [self.rows[:0]]
        while start < stop:
            number = self.window_at(start)
            first, end = self._first(number), min(stop, self._first(number + 1))
            pieces.append(self.window(number)[start - first : end - first])
            start = end
        return np.concatenate(pieces)

    def window_at(self, position: int) -> int:
        """The window that a position of the epoch lies in."""
        number = position // (self._block * self._window)
        return number + (position >= self._first(number + 1))

    def window(self, number: int) -> Int64[np.ndarray, "b"]:
        """The rows of one window, in their order."""
        if self._latest[0] != number:
            joined = self.members(number)
            mixed = _permutation(len(joined), self._seed, 2 * self._epoch + 1, number)
            self._latest = (number, joined[mixed])
        return self._latest[1]

    def members(self, number: int) -> Int64[np.ndarray, "b"]:
        """The rows of one window, not mixed yet: its blocks one after another."""
        blocks = self._shuffled[number * self._window : (number + 1) * self._window]
        return np.concatenate([self.rows[i * self._block : (i + 1) * self._block] for i in blocks])

    def windows_of(self, rows: Int64[np.ndarray, "b"]) -> Int64[np.ndarray, "b"]:
        """The window that each of some rows lies in; -1 for a row that the epoch does not visit.

        Example:
            >>> EpochOrder(np.arange(8), 0, 0, block=2, window=2).windows_of(np.array([8]))
            array([-1])
        """
        if not len(self.rows):
            return np.full(len(rows), -1, dtype=np.int64)
        place = np.searchsorted(self.rows, rows).clip(max=len(self.rows) - 1)
        windows = self._places[place // self._block] // self._window
        found: Int64[np.ndarray, "b"] = np.where(self.rows[place] == rows, windows, -1)
        return found

    @cached_property
    def _places(self) -> Int64[np.ndarray, "n"]:
        """Where in the epoch each block has got to."""
        return np.argsort(self._shuffled)

    def _first(self, number: int) -> int:
        """Position of a window's first row."""
        first = number * self._window * self._block
        return min(len(self.rows), first - (self._lacking if number > self._short else 0))


def _permutation(length: int, seed: int, stream: int, substream: int = 0) -> Int64[np.ndarray, "n"]:
    raw = _words(length, seed, stream, (0, 0, 0, substream))
    return np.argsort(raw, kind="stable").astype(np.int64, copy=False)


def _words(
    length: int, seed: int, stream: int, counter: tuple[int, int, int, int]
) -> UInt64[np.ndarray, "n"]:
    key = np.array([seed, stream & (2**64 - 1)], dtype=np.uint64)
    generator = np.random.Philox(key=key, counter=np.array(counter, dtype=np.uint64))
    words: UInt64[np.ndarray, "n"] = generator.random_raw(length)
    return words
