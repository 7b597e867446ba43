"""Reading the rows of one split, in any order, into the caller's memory.

A record's checksum is compared on its first touch; a missing row is an error, never zeros.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float16, Int32, Int64, Shaped, UInt8, UInt32

from losa.errors import StoreError
from losa.features import FeatureSpec, Regime, Sample
from losa.store import layout
from losa.store.crc import crc32
from losa.store.order import EpochOrder
from losa.store.records import Records, ShardFiles, ShardRecords

Verify = Literal["first", "always", "never"]


@runtime_checkable
class RowFiles(ShardFiles, Protocol):
    """What the rows of splits are read from: the folder of a store, or one file of all shards."""

    path: Path

    def checks(self, split: str, tap: int, shard: int) -> UInt32[np.ndarray, "n"]:
        """The stored checksums of one shard's records."""
        ...

    def status(self, split: str) -> UInt8[np.ndarray, "n"]:
        """Status of each row of a split."""
        ...

    def column(self, split: str, name: str, dtype: str) -> Shaped[np.ndarray, "n"]:
        """A column of a split's samples, in row order."""
        ...

    def samples(self, split: str) -> tuple[Sample, ...]:
        """The listed samples of a split, in the data set's order."""
        ...

    def damage(self, name: str, what: str) -> StoreError:
        """The error of something being wrong with what is called ``name``."""
        ...


class SplitReader:
    """Reads rows of one split; safe to use from several threads at once.

    Args:
        source: labels, status, samples and checksums.
        name: the split's.
        verify: when a record's checksum is compared: on its ``first`` touch, ``always``, ``never``.
        records: what records are copied from; by default the source's shards.
    """

    def __init__(
        self, source: RowFiles, name: str, verify: Verify, records: Records | None = None
    ) -> None:
        plan = source.plan
        self.name = name
        self.rows = plan.splits[name].rows
        self.spec = plan.spec
        self.raw_dtype = np.dtype(layout.RAW_DTYPES[plan.spec.dtype])
        self._files = source
        self._shard_rows = source.shard_rows(name)
        self._records: Records = records or ShardRecords(source, name)
        self._verify: Verify = "always" if self._records.is_doubtful else verify
        self._seen = {tap: np.zeros(self.rows, dtype=np.bool_) for tap in plan.spec.taps}
        self._checks: dict[tuple[int, int], UInt32[np.ndarray, "n"]] = {}

    @cached_property
    def labels(self) -> Int32[np.ndarray, "n"]:
        """Label of each row."""
        column: Int32[np.ndarray, "n"] = self._files.column(self.name, "label", "<i4")
        return column

    @cached_property
    def source_index(self) -> Int64[np.ndarray, "n"]:
        """Position of each row's sample in :attr:`samples`."""
        column: Int64[np.ndarray, "n"] = self._files.column(self.name, "source_index", "<i8")
        return column

    @cached_property
    def views(self) -> UInt8[np.ndarray, "n"]:
        """Which view of its sample each row is; 0 is the clean one."""
        if self._files.plan.views_of(self.name) == 1:
            return np.zeros(self.rows, dtype=np.uint8)
        column: UInt8[np.ndarray, "n"] = self._files.column(self.name, "view", "|u1")
        return column

    @cached_property
    def status(self) -> UInt8[np.ndarray, "n"]:
        """1 where a row holds features; elsewhere the code of the reason why not."""
        return self._files.status(self.name)

    @cached_property
    def samples(self) -> tuple[Sample, ...]:
        """The listed samples, in the data set's order."""
        return self._files.samples(self.name)

    def read_into(
        self,
        rows: Int64[np.ndarray, "b"],
        taps: tuple[int, ...],
        out: Shaped[np.ndarray, "k b l d"],
        scales: Float16[np.ndarray, "k b l"] | None = None,
    ) -> None:
        """Read the records of ``rows`` at ``taps`` into ``out``, in the order asked.

        ``out`` is C-contiguous in the last two axes and of :attr:`raw_dtype`; nothing is copied on
        the way. An int8 store also fills ``scales``, which then must be given. Precondition: rows
        lie within the split and taps within the store.

        Raises:
            StoreError: a shard is missing or truncated, or a record fails its checksum.
        """
        assert (scales is not None) == (self.spec.scale_bytes > 0)
        for number, tap in enumerate(taps):
            parts = [_as_bytes(out[number], self.spec.record_bytes)]
            if scales is not None:
                parts.append(_as_bytes(scales[number], self.spec.scale_bytes))
            is_first = self._verify != "never" and not bool(self._seen[tap][rows].all())
            # "always" means that every read is a first touch.
            self._records.copy(tap, rows, parts, is_seen=self._verify == "first" and not is_first)
            if is_first or self._verify == "always":
                self._check(tap, rows, parts)

    def follow(self, order: EpochOrder | None, taps: tuple[int, ...], start: int) -> None:
        """Be told that ``taps`` of the rows of ``order`` will be read next, from ``start`` on.

        A ``stream`` fetches ahead, and drops what has been read; other regimes do nothing.
        ``None``: rows will be read in an order that nobody tells.
        """
        self._records.follow(order, taps, start)

    def _check(
        self, tap: int, rows: Int64[np.ndarray, "b"], parts: list[UInt8[np.ndarray, "b ..."]]
    ) -> None:
        seen = self._seen[tap]
        for position, row in enumerate(rows.tolist()):
            if seen[row] and self._verify == "first":
                continue
            shard, slot = divmod(row, self._shard_rows)
            check = 0
            for part in parts:
                check = crc32(part[position].data, check)
            if check != self._check_values(tap, shard)[slot]:
                name = self._records.name(tap, shard)
                raise self._files.damage(name, f"row {row} does not match its checksum")
        seen[rows] = True

    def _check_values(self, tap: int, shard: int) -> UInt32[np.ndarray, "n"]:
        key = (tap, shard)
        if key not in self._checks:
            self._checks[key] = self._files.checks(self.name, tap, shard)
        return self._checks[key]


class SplitStore:
    """What every kind of store is to its readers: a plan, and splits opened on first use.

    Args:
        source: what its splits are read from.
        verify: when checksums are compared.
        regime: how records are read.
    """

    def __init__(self, source: RowFiles, verify: Verify, regime: Regime) -> None:
        self.path = source.path
        self.plan = source.plan
        self._source = source
        self._verify: Verify = verify
        self._regime: Regime = regime
        self._splits: dict[str, SplitReader] = {}

    @property
    def spec(self) -> FeatureSpec:
        """What the features are."""
        return self.plan.spec

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self.plan.splits)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; label ``i`` is ``classes[i]``."""
        return self.plan.classes

    def split(self, name: str) -> SplitReader:
        """The reader of one split.

        Raises:
            StoreError: the store has no such split.
        """
        if name not in self.plan.splits:
            have = ", ".join(self.splits)
            raise StoreError(self.path, f"has no split {name!r}", f"it has {have}")
        if name not in self._splits:
            records = self._records(name)
            self._splits[name] = SplitReader(self._source, name, self._verify, records)
        return self._splits[name]

    def _records(self, split: str) -> Records:
        return ShardRecords(self._source, split, self._regime)


def _as_bytes(plane: Shaped[np.ndarray, "b ..."], size: int) -> UInt8[np.ndarray, "b ..."]:
    return plane.view(np.uint8).reshape(len(plane), size)
