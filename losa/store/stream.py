"""What a reader of a store larger than memory will need next, and what it will not need again.

The order of an epoch is known ahead (:class:`losa.store.order.EpochOrder`). When a reader enters a
window of it, the records of the next one can be fetched, and when it has read there, those of the
last one dropped, which leaves the memory to what is still to come. All of this is advice: nothing
depends on it.
"""

from __future__ import annotations

from threading import Lock

import numpy as np
from jaxtyping import Int64

from losa.store.order import EpochOrder


class Follower:
    """How far the readers of each tap have got in an epoch; safe to use from several threads.

    Args:
        order: of the epoch.
        taps: those that will be read.
        start: position of the first row that will be read.
    """

    def __init__(self, order: EpochOrder, taps: tuple[int, ...], start: int) -> None:
        self._order = order
        first = order.window_at(start) if start < len(order) else order.windows
        self._wanted = dict.fromkeys(taps, first)
        self._dropped = dict.fromkeys(taps, first)
        self._lock = Lock()

    def enter(self, tap: int, rows: Int64[np.ndarray, "b"]) -> range:
        """Windows to fetch now that these rows are about to be read; mostly none."""
        window = self._latest(rows)
        with self._lock:
            wanted = self._wanted.get(tap, self._order.windows)
            upto = min(window + 2, self._order.windows)
            if window < 0 or upto <= wanted:
                return range(0)
            self._wanted[tap] = upto
        return range(max(wanted, window), upto)

    def leave(self, tap: int, rows: Int64[np.ndarray, "b"]) -> range:
        """Windows to drop now that these rows have been read; mostly none."""
        window = self._latest(rows)
        with self._lock:
            dropped = self._dropped.get(tap, self._order.windows)
            if window <= dropped:
                return range(0)
            self._dropped[tap] = window
        return range(dropped, window)

    def spans(self, window: int, shard_rows: int) -> list[tuple[int, int, int]]:
        """Where the rows of a window lie: shard, first slot and the slot after the last."""
        return runs(np.sort(self._order.members(window)), shard_rows)

    def _latest(self, rows: Int64[np.ndarray, "b"]) -> int:
        return int(self._order.windows_of(rows).max(initial=-1))


def runs(rows: Int64[np.ndarray, "b"], shard_rows: int) -> list[tuple[int, int, int]]:
    """Runs of neighbours among ascending rows, each within a shard: (shard, first slot, stop).

    Example:
        >>> runs(np.array([2, 3, 4, 5, 9]), shard_rows=4)
        [(0, 2, 4), (1, 0, 2), (2, 1, 2)]
    """
    if not len(rows):
        return []
    breaks = np.flatnonzero((np.diff(rows) != 1) | (rows[1:] % shard_rows == 0)) + 1
    first = rows[np.concatenate([[0], breaks])]
    last = rows[np.concatenate([breaks, [len(rows)]]) - 1]
    shards, slots = np.divmod(first, shard_rows)
    stops = last - shards * shard_rows + 1
    return list(zip(shards.tolist(), slots.tolist(), stops.tolist(), strict=True))
