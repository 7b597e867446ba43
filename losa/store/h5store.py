"""A store in one HDF5 file, behind the interface of a store in a folder.

Source: docs/hdf5.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float32, Shaped, UInt8, UInt32

from losa.errors import StoreError, UsageError
from losa.features import Regime, Sample
from losa.store import files, layout
from losa.store.h5file import AGAIN, H5File
from losa.store.hdf5 import column_path, statistic_path
from losa.store.plan import Plan
from losa.store.reader import Calibration
from losa.store.sealed import OK_STATUS
from losa.store.shardfile import FileShard, ShardTable, descriptor_limit
from losa.store.skeleton import statistics_of
from losa.store.split import SplitStore, Verify

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_REASON: Final[Mapping[str, type]] = {"row": int, "key": str, "code": int, "message": str}

Reason = Mapping[str, Any]
"""Why a row was skipped, as commit records say it: ``row``, ``key``, ``code`` and ``message``."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The store that a file was exported from, of which it may hold some taps and splits only."""

    store_id: str
    taps: tuple[int, ...]
    splits: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The content of the attribute ``source``."""
        taps, splits = list(self.taps), list(self.splits)
        return {"store_id": self.store_id, "taps": taps, "splits": splits}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], path: Path) -> Origin:
        """Rebuild an origin.

        Raises:
            StoreError: the content is not one.
        """
        try:
            origin = cls(value["store_id"], tuple(value["taps"]), tuple(value["splits"]))
            is_sound = bool(_DIGEST.fullmatch(origin.store_id))
        except (KeyError, TypeError):
            is_sound = False
        if not is_sound:
            raise StoreError(path, "does not say which store it is of", AGAIN)
        return origin

    def is_whole(self, plan: Plan) -> bool:
        """Whether a file of this plan holds all that the store holds."""
        return (self.taps, self.splits) == (plan.spec.taps, tuple(plan.splits))

    def digest_of(self, plan: Plan) -> str:
        """The ``store_id`` of the file: the store's own, or one of these taps and splits of it."""
        if self.is_whole(plan):
            return self.store_id
        part = Origin(self.store_id, plan.spec.taps, tuple(plan.splits))
        return files.sha256(files.canonical_json(part.to_json()))


def open_h5(path: Path | str, *, verify: Verify = "first", regime: Regime = "auto") -> H5Store:
    """Open an HDF5 file of ``losa export``; ``verify`` and ``regime`` are as for ``open_store``.

    Raises:
        StoreError: the file is missing, none of losa's, newer or damaged; the object is named.
        UsageError: the regime is ``foreign``.
    """
    if regime == "foreign":
        raise UsageError("--read", "an HDF5 file is not read as foreign", "give auto")
    return H5Store(H5File(Path(path)), verify, regime)


class H5Store(SplitStore):
    """A store in an HDF5 file; see :func:`open_h5`. Splits are opened on first use."""

    def __init__(self, file: H5File, verify: Verify, regime: Regime = "auto") -> None:
        rows = _H5Rows(file)
        super().__init__(rows, verify, regime)
        self.origin = Origin.from_json(_parsed(file, "source"), file.path)
        self.store_id = self.origin.digest_of(self.plan)
        self.files = rows
        self._file = file
        reasons = _parsed(file, "skipped")
        self._reasons = {split: _reasons(self.files, split, reasons) for split in self.splits}

    def skipped(self, split: str) -> list[Reason]:
        """Why rows of a split hold no features, in the order of their commit records."""
        return self._reasons[split]

    def statistics(self, taps: tuple[int, ...]) -> dict[str, Float32[np.ndarray, "k d"]]:
        """The calibration's arrays by name."""
        return {
            name: np.stack([self._file.read(statistic_path(tap, name)) for tap in taps])
            for name in statistics_of(self.plan)
        }

    def calibration(self, taps: tuple[int, ...]) -> Calibration:
        """Statistics of the given taps, in true units, and the exponents of their records."""
        exponents = tuple(self.plan.exponents[self.spec.taps.index(tap)] for tap in taps)
        return Calibration(**self.statistics(taps), exponent=exponents)


class _H5Rows:
    """The rows of an HDF5 file, each split as one shard."""

    def __init__(self, file: H5File) -> None:
        self.path = file.path
        self.plan = file.plan
        self.shards = ShardTable(descriptor_limit())
        self._file = file

    def shard_rows(self, split: str) -> int:
        """All rows of the split."""
        return self.plan.splits[split].rows

    def held(self, split: str, shard: int) -> int:
        """All rows of the split."""
        assert shard == 0
        return self.plan.splits[split].rows

    def open_shard(self, name: str, held: int, record_bytes: int) -> FileShard:
        """The records of a data set; their number was looked at when the file was opened."""
        assert held
        return self._file.records(_data_set(name), record_bytes)

    def checks(self, split: str, tap: int, shard: int) -> UInt32[np.ndarray, "n"]:
        """The stored checksums of a tap's records."""
        assert shard == 0
        return self._file.read(layout.check_path(split, tap))

    def status(self, split: str) -> UInt8[np.ndarray, "n"]:
        """Status of each row of a split."""
        return self._file.read(column_path(split, "status"))

    def column(self, split: str, name: str, dtype: str) -> Shaped[np.ndarray, "n"]:
        """A column of a split's samples, in row order.

        Raises:
            StoreError: rows do not stand for every view of every listed sample.
        """
        path = column_path(split, name)
        values = self._file.read(path)
        assert values.dtype == np.dtype(dtype)
        samples, views = self.plan.splits[split].samples, self.plan.views_of(split)
        if name == "source_index" and not _has_each(values, samples, views):
            raise self._file.error(path, "is no order of the samples")
        if name == "view" and not _has_each(values, views, samples):
            raise self._file.error(path, "is not every view of every sample")
        return values

    def samples(self, split: str) -> tuple[Sample, ...]:
        """The listed samples of a split, in the data set's order.

        Raises:
            StoreError: a key or a path is not UTF-8.
        """
        rows = self.column(split, "source_index", "<i8")
        labels = np.empty(self.plan.splits[split].samples, np.int64)
        labels[rows] = self.column(split, "label", "<i4")
        keys, paths = (self._texts(column_path(split, name)) for name in ("key", "path"))
        return tuple(map(Sample, keys, paths, labels.tolist()))

    def damage(self, name: str, what: str) -> StoreError:
        """The error of something being wrong with a data set."""
        return self._file.error(_data_set(name), what)

    def _texts(self, path: str) -> list[str]:
        try:
            return [text.decode() for text in self._file.read(path).tolist()]
        except UnicodeDecodeError:
            raise self._file.error(path, "is not UTF-8") from None


def _has_each(values: Shaped[np.ndarray, "n"], kinds: int, times: int) -> bool:
    """Whether each number below ``kinds`` stands there so many times."""
    return np.array_equal(np.sort(values), np.repeat(np.arange(kinds), times))


def _data_set(name: str) -> str:
    """The data set that holds what a store has in the file ``name``."""
    return name.rpartition("/")[0]


def _parsed(file: H5File, text: str) -> dict[str, Any]:
    return files.parse_json(file.path, file.texts[text].encode())


def _reasons(rows: _H5Rows, split: str, found: Mapping[str, Any]) -> list[Reason]:
    """A split's skipped rows, which must be those that its status says.

    Raises:
        StoreError: they are not.
    """
    reasons = found.get(split)
    status = rows.status(split)
    is_sound = isinstance(reasons, list) and all(map(_is_reason, reasons))
    if is_sound:
        assert reasons is not None
        said = {item["row"]: item["code"] for item in reasons}
        skipped = np.flatnonzero(status != OK_STATUS).tolist()
        codes = {row: int(status[row]) for row in skipped}
        is_sound = said == codes and len(reasons) == len(said)
    if not is_sound:
        what = f"does not say which rows of {split} were skipped"
        raise StoreError(rows.path, what, AGAIN)
    return list(reasons or ())


def _is_reason(value: object) -> bool:
    if not isinstance(value, dict) or set(value) != set(_REASON):
        return False
    return all(type(value[name]) is kind for name, kind in _REASON.items())
