"""Reading a sealed store: rows of any order into the caller's memory, at the speed of ``preadv``.

zarr-python is not needed: the shard files are raw records (docs/store-format.md). A record's
checksum is compared on its first touch; a missing row is an error, never zeros.

A first touch goes through ``preadv``, where a failing disk is an error with a name. Later touches
of a split that fits in memory copy from a mapping of the same file, which saves the system call and
the kernel's slower copy; a mapping alone would turn a failing disk into SIGBUS.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from jaxtyping import Float32, Int32, Int64, Shaped, UInt8

from losa.errors import StoreError
from losa.features import FeatureSpec, Sample
from losa.store import files, layout
from losa.store.plan import FORMAT_MAJOR, Plan
from losa.store.shardfile import FileShard, Folders, Shard, ShardTable, descriptor_limit
from losa.store.skeleton import STATISTICS

RAW_DTYPES: Final[Mapping[str, str]] = {"float16": "<f2", "bfloat16": "<u2", "float32": "<f4"}
Verify = Literal["first", "always", "never"]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Statistics of each tap's channels over a seeded sample of the train split."""

    mean: Float32[np.ndarray, "k d"]
    std: Float32[np.ndarray, "k d"]
    absmax: Float32[np.ndarray, "k d"]
    exponent: tuple[int, ...]


def open_store(path: Path | str, *, verify: Verify = "first") -> Store:
    """Open a sealed store of this format.

    ``verify`` says when a record's checksum is compared: on its ``first`` touch, ``always``, or
    ``never``.

    Raises:
        StoreError: the store is missing, foreign, newer, unsealed or damaged; the file is named.
    """
    path = Path(path)
    check_format(path)
    folders = Folders(path)
    sealed_path = folders.check(layout.SEALED_OBJECT)
    plan_path = path / layout.PLAN_OBJECT
    if not sealed_path.exists():
        raise StoreError(path, f"is not sealed ({_progress(path)})", _RESUME)
    sealed_bytes = files.read_file(sealed_path)
    sealed = files.parse_json(sealed_path, sealed_bytes)
    digests = sealed.get("files")
    if files.canonical_json(sealed) != sealed_bytes or not isinstance(digests, dict):
        raise StoreError(sealed_path, "is not as losa writes it", _REPAIR)
    plan_bytes = _as_sealed(plan_path, layout.PLAN_OBJECT, files.read_file(plan_path), digests)
    plan = Plan.from_json(files.parse_json(plan_path, plan_bytes), plan_path)
    return Store(path, plan, sealed, files.sha256(sealed_bytes), verify)


def check_format(path: Path) -> None:
    """Refuse what is not a losa store of a format this version reads.

    Raises:
        StoreError: nothing is there, it is not ours, or it is newer.
    """
    if not path.exists():
        raise StoreError(path, "does not exist", "extract it first, or give another --store")
    root = path / layout.ROOT_OBJECT
    if not path.is_dir() or not root.exists():
        raise StoreError(path, "is not a losa store (no zarr.json)", "give a store's folder")
    attributes = files.read_json(root).get("attributes")
    losa = attributes.get("losa") if isinstance(attributes, dict) else None
    form = losa.get("format") if isinstance(losa, dict) else None
    major = form.get("major") if isinstance(form, dict) else None
    if not isinstance(losa, dict) or not isinstance(major, int):
        raise StoreError(root, "has no attributes.losa.format", "this zarr group is not losa's")
    if major != FORMAT_MAJOR:
        raise StoreError(
            root,
            f"is losa store format {major} (written by {losa.get('writer')}); "
            f"this losa reads format {FORMAT_MAJOR}",
            "upgrade with pip install -U losa",
        )


def count_committed(path: Path, split: str) -> int:
    """Shards of a split that are committed; a folder that got lost while empty holds none.

    Raises:
        StoreError: a folder on the way is a symbolic link.
    """
    name = layout.commit_object(split, 0)
    folder = Folders(path).check(name).parent
    try:
        return sum(1 for _ in folder.iterdir())
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise files.resource_error(folder, error) from error


class Store:
    """A sealed store; see :func:`open_store`. Splits are opened on first use."""

    def __init__(
        self, path: Path, plan: Plan, sealed: Mapping[str, Any], store_id: str, verify: Verify
    ) -> None:
        self.path = path
        self.plan = plan
        self.sealed = sealed
        self.store_id = store_id
        self.folders = Folders(path)
        self.shards = ShardTable(descriptor_limit())
        self._verify = verify
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
            self._splits[name] = SplitReader(self, name, self._verify)
        return self._splits[name]

    def calibration(self, taps: tuple[int, ...]) -> Calibration:
        """Statistics of the given taps, in true units, and the exponents of their records."""
        arrays = {
            statistic: np.stack([self._statistic(tap, statistic) for tap in taps])
            for statistic in STATISTICS
        }
        exponents = tuple(self.plan.exponents[self.spec.taps.index(tap)] for tap in taps)
        return Calibration(arrays["mean"], arrays["std"], arrays["absmax"], exponents)

    def nbytes(self) -> int:
        """Bytes of all token shards."""
        plan, record = self.plan, self.spec.record_bytes
        total = 0
        for item in plan.splits.values():
            for shard in range(layout.shard_count(item.rows, plan.shard_rows)):
                first, stop = layout.shard_span(shard, item.rows, plan.shard_rows)
                total += layout.shard_file_bytes(stop - first, plan.shard_rows, record)
        return total * len(self.spec.taps)

    def _statistic(self, tap: int, name: str) -> Float32[np.ndarray, "d"]:
        data = self.read_small(f"calib/{layout.tap_name(tap)}/{name}/c.0")
        return np.frombuffer(data, dtype="<f4")

    def read_small(self, name: str) -> bytes:
        """Read a file that the seal vouches for.

        Raises:
            StoreError: the file is missing or is not the one that was sealed.
        """
        return _as_sealed(self.path / name, name, self.read_file(name), self.sealed["files"])

    def read_file(self, name: str) -> bytes:
        """Read a small file below the store's root, which no link leads to.

        Raises:
            StoreError: the file is missing, not regular, or behind a link.
        """
        path = self.folders.check(name)
        return self.shards.with_room(lambda: files.read_file(path, at_most=files.MAX_TABLE_BYTES))


class SplitReader:
    """Reads rows of one split; safe to use from several threads at once."""

    def __init__(self, store: Store, name: str, verify: Verify) -> None:
        self.name = name
        self.rows = store.plan.splits[name].rows
        self.spec = store.spec
        self.raw_dtype = np.dtype(RAW_DTYPES[store.spec.dtype])
        self._store = store
        self._shard_rows = store.plan.shard_rows
        self._verify: Verify = verify
        self._seen = {tap: np.zeros(self.rows, dtype=np.bool_) for tap in store.spec.taps}
        # "always" means that every read is a first touch.
        self._is_mapped = verify == "first" and self._bytes() < _memory_bytes() // 2
        self._checks: dict[tuple[int, int], UInt8[np.ndarray, "n"]] = {}

    @cached_property
    def labels(self) -> Int32[np.ndarray, "n"]:
        """Label of each row."""
        column: Int32[np.ndarray, "n"] = self._column("label", "<i4")
        return column

    @cached_property
    def source_index(self) -> Int64[np.ndarray, "n"]:
        """Position of each row's sample in :attr:`samples`."""
        column: Int64[np.ndarray, "n"] = self._column("source_index", "<i8")
        return column

    @cached_property
    def status(self) -> UInt8[np.ndarray, "n"]:
        """1 where a row holds features; elsewhere the code of the reason why not."""
        parts = []
        for shard in range(layout.shard_count(self.rows, self._shard_rows)):
            held = self._held(shard)
            name = layout.status_object(self.name, shard)
            parts.append(np.frombuffer(self._committed(shard, name), dtype=np.uint8)[:held])
        return np.concatenate(parts)

    @cached_property
    def samples(self) -> tuple[Sample, ...]:
        """The listed samples, in the data set's order."""
        name = layout.samples_object(self.name)
        lines = self._store.read_small(name).splitlines()
        path = self._store.path / name
        rows = [files.parse_json(path, b'{"row":' + line + b"}")["row"] for line in lines]
        return tuple(Sample(*row) for row in rows)

    def read_into(
        self,
        rows: Int64[np.ndarray, "b"],
        taps: tuple[int, ...],
        out: Shaped[np.ndarray, "k b l d"],
    ) -> None:
        """Read the records of ``rows`` at ``taps`` into ``out``, in the order asked.

        ``out`` is C-contiguous in the last two axes and of :attr:`raw_dtype`; nothing is copied on
        the way. Precondition: rows lie within the split and taps within the store.

        Raises:
            StoreError: a shard is missing or truncated, or a record fails its checksum.
        """
        # By shard, so that a thread holds one of them at a time however the rows are strewn.
        places: dict[int, list[tuple[int, int]]] = {}
        for position, row in enumerate(rows.tolist()):
            shard, slot = divmod(row, self._shard_rows)
            places.setdefault(shard, []).append((position, slot))
        for number, tap in enumerate(taps):
            records = out[number].view(np.uint8).reshape(len(rows), self.spec.record_bytes)
            mapped = self._is_mapped and bool(self._seen[tap][rows].all())
            for shard, slots in places.items():
                self._open(tap, shard, mapped=mapped).copy(slots, records)
            if not mapped and self._verify != "never":
                self._check(tap, rows, records)

    def _check(
        self, tap: int, rows: Int64[np.ndarray, "b"], records: Shaped[np.ndarray, "b ..."]
    ) -> None:
        seen = self._seen[tap]
        for record, row in zip(records, rows.tolist(), strict=True):
            if seen[row] and self._verify == "first":
                continue
            shard, slot = divmod(row, self._shard_rows)
            if zlib.crc32(record.data) != self._check_values(tap, shard)[slot]:
                raise StoreError(
                    self._store.path / layout.tokens_object(self.name, tap, shard),
                    f"row {row} does not match its checksum",
                    _REPAIR,
                )
        seen[rows] = True

    def _check_values(self, tap: int, shard: int) -> Any:
        key = (tap, shard)
        if key not in self._checks:
            name = layout.check_object(self.name, tap, shard)
            self._checks[key] = np.frombuffer(self._committed(shard, name), dtype="<u4")
        return self._checks[key]

    def _committed(self, shard: int, name: str) -> bytes:
        """A small file of a shard, compared with the shard's commit record."""
        commit = layout.commit_object(self.name, shard)
        record = files.parse_json(self._store.path / commit, self._store.read_small(commit))
        data = self._store.read_file(name)
        if record["objects"].get(name, {}).get("sha256") != files.sha256(data):
            raise StoreError(self._store.path / name, "is not the file that was committed", _REPAIR)
        return data

    def _open(self, tap: int, shard: int, *, mapped: bool) -> Shard:
        make = self._map if mapped else self._open_file
        key = (self.name, tap, shard, mapped)
        return self._store.shards.take(key, lambda: make(tap, shard))

    def _open_file(self, tap: int, shard: int) -> FileShard:
        name = layout.tokens_object(self.name, tap, shard)
        file = FileShard(self._store.folders.check(name), self.spec.record_bytes)
        want = layout.shard_file_bytes(self._held(shard), self._shard_rows, self.spec.record_bytes)
        if file.nbytes != want:
            raise StoreError(file.path, f"is {file.nbytes} bytes, not {want}", _REPAIR)
        return file

    def _map(self, tap: int, shard: int) -> Shard:
        mapped = self._open_file(tap, shard).mapped(self._held(shard))
        self._store.shards.discard((self.name, tap, shard, False))
        return mapped

    def _bytes(self) -> int:
        return self.rows * self.spec.sample_bytes

    def _held(self, shard: int) -> int:
        first, stop = layout.shard_span(shard, self.rows, self._shard_rows)
        return stop - first

    def _column(self, name: str, dtype: str) -> Any:
        data = self._store.read_small(f"{self.name}/sample/{name}/c.0")
        return np.frombuffer(data, dtype=dtype)


_RESUME = "run the same extract command again to finish it"
_REPAIR = "run losa verify on the store; extract it again if the damage is real"


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _as_sealed(path: Path, name: str, data: bytes, digests: Mapping[str, Any]) -> bytes:
    """The content of a small file, whose sha256 must be the seal's."""
    if files.sha256(data) != digests.get(name):
        raise StoreError(path, "is not the file that was sealed", _REPAIR)
    return data


def _progress(path: Path) -> str:
    plan_path = path / layout.PLAN_OBJECT
    plan = Plan.from_json(files.read_json(plan_path), plan_path)
    done = sum(count_committed(path, split) for split in plan.splits)
    total = sum(layout.shard_count(item.rows, plan.shard_rows) for item in plan.splits.values())
    return f"{done} of {total} shards are committed"
