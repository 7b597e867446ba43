"""Records of a split, copied out of its shards: by ``preadv``, from a mapping, or with foresight.

A first touch goes through ``preadv``, where a failing disk is an error with a name. Later touches
of a split that fits in memory copy from a mapping of the same file, which saves the system call and
the kernel's slower copy; a mapping alone would turn a failing disk into SIGBUS.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, UInt8

from losa.features import Regime
from losa.store import layout
from losa.store.order import EpochOrder
from losa.store.plan import Plan
from losa.store.shardfile import FileShard, Shard, ShardTable
from losa.store.stream import Follower

Parts = list[UInt8[np.ndarray, "b ..."]]
"""Bytes of the records of one tap, row by row: tokens and, for int8, their scales."""

_NAMES: Final = (layout.tokens_object, layout.scale_object)


@runtime_checkable
class ShardFiles(Protocol):
    """What shards of records are opened from.

    ``name`` is always the file that a store would have for what is asked.
    """

    plan: Plan
    shards: ShardTable

    def shard_rows(self, split: str) -> int:
        """Rows of a full shard."""
        ...

    def held(self, split: str, shard: int) -> int:
        """Rows that a shard holds."""
        ...

    def open_shard(self, name: str, held: int, record_bytes: int) -> FileShard:
        """Open the records of one shard at one tap, known to be as many as they should be."""
        ...


@runtime_checkable
class Records(Protocol):
    """Records of one split; safe to use from several threads at once."""

    is_doubtful: bool
    """Whether records must be held against their checksums whenever they are read."""

    def copy(self, tap: int, rows: Int64[np.ndarray, "b"], parts: Parts, *, is_seen: bool) -> None:
        """Copy the records of ``rows`` at a tap; ``is_seen``: all were copied, and found sound."""
        ...

    def name(self, tap: int, shard: int) -> str:
        """What the user looks at when a record of a shard is damaged."""
        ...

    def follow(self, order: EpochOrder | None, taps: tuple[int, ...], start: int) -> None:
        """Be told what will be read next; ``None``: nobody knows."""
        ...


class ShardRecords:
    """Records of a split that lie in raw shards.

    Args:
        files: what the shards are opened from.
        split: its name.
        regime: ``auto`` maps what has been read before if the split fits in half of the machine's
            memory, and else is ``stream``; ``resident`` is read once, hence as ``preadv``.
    """

    is_doubtful = False

    def __init__(self, files: ShardFiles, split: str, regime: Regime = "auto") -> None:
        assert regime != "foreign"
        rows = files.plan.splits[split].rows
        self._files = files
        self._split = split
        spec = files.plan.spec
        self._sizes = [spec.record_bytes, *([spec.scale_bytes] if spec.scale_bytes else [])]
        self._shard_rows = files.shard_rows(split)
        is_small = rows * spec.sample_bytes < _memory_bytes() // 2
        self._maps_all = regime == "mmap"
        self._maps_seen = regime == "auto" and is_small
        self._is_streamed = regime == "stream" or (regime == "auto" and not is_small)
        self._follower: Follower | None = None

    def copy(self, tap: int, rows: Int64[np.ndarray, "b"], parts: Parts, *, is_seen: bool) -> None:
        """Copy the records of ``rows`` at a tap.

        Raises:
            StoreError: a shard is missing or of another size.
            ResourceError: the disk fails.
        """
        follower = self._follower
        if follower is not None:
            for window in follower.enter(tap, rows):
                self._advise(follower, tap, window, os.POSIX_FADV_WILLNEED)
        # By shard, so that a thread holds one of them at a time however the rows are strewn.
        places: dict[int, list[tuple[int, int]]] = {}
        for position, row in enumerate(rows.tolist()):
            shard, slot = divmod(row, self._shard_rows)
            places.setdefault(shard, []).append((position, slot))
        mapped = self._maps_all or (self._maps_seen and is_seen)
        for shard, slots in places.items():
            for kind, part in enumerate(parts):
                self._open(tap, shard, kind, mapped=mapped).copy(slots, part)
        if follower is not None:
            for window in follower.leave(tap, rows):
                self._advise(follower, tap, window, os.POSIX_FADV_DONTNEED)

    def name(self, tap: int, shard: int) -> str:
        """The shard's file."""
        return layout.tokens_object(self._split, tap, shard)

    def follow(self, order: EpochOrder | None, taps: tuple[int, ...], start: int) -> None:
        """Fetch and drop windows of ``order`` from now on, if this is a stream."""
        if self._is_streamed:
            self._follower = None if order is None else Follower(order, taps, start)

    def _advise(self, follower: Follower, tap: int, window: int, advice: int) -> None:
        for shard, first, stop in follower.spans(window, self._shard_rows):
            for kind, _ in enumerate(self._sizes):
                # Whoever needs the records says what is wrong with them.
                with suppress(OSError):
                    found = self._open(tap, shard, kind, mapped=False)
                    assert isinstance(found, FileShard)
                    found.advise(first, stop, advice)

    def _open(self, tap: int, shard: int, kind: int, *, mapped: bool) -> Shard:
        """The tokens (0) or the scales (1) of a shard."""
        name, size = _NAMES[kind](self._split, tap, shard), self._sizes[kind]
        held = self._files.held(self._split, shard)

        def make() -> Shard:
            found = self._files.open_shard(name, held, size)
            if not mapped:
                return found
            self._files.shards.discard((name, False))
            return found.mapped(held)

        return self._files.shards.take((name, mapped), make)


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
