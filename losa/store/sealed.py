"""The files of a sealed store, each held against what vouches for it: the seal, or a commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float32, Shaped, UInt8, UInt32

from losa.errors import StoreError
from losa.features import Sample
from losa.store import files, layout
from losa.store.listing import parse_samples
from losa.store.plan import Plan
from losa.store.shardfile import FileShard, Folders, ShardTable, descriptor_limit

OK_STATUS: Final = 1
"""Status of a row that holds features."""

REPAIR: Final = "run losa verify on the store; losa repair mends what it names"


Read = Callable[[str], bytes]
"""Gives a file's content by its name below the store's root."""


class SealedFiles:
    """Reads files of a sealed store; safe to use from several threads at once.

    ``read`` gives the content of a small file, where that does not simply lie at its name.
    """

    def __init__(
        self, path: Path, plan: Plan, sealed: Mapping[str, Any], read: Read | None = None
    ) -> None:
        self.path = path
        self.plan = plan
        self.folders = Folders(path)
        self.shards = ShardTable(descriptor_limit())
        self.sealed = sealed
        self._read = read
        self._digests: Mapping[str, str] = sealed["files"]
        self._commits: dict[tuple[str, int], Mapping[str, Any]] = {}

    def read_small(self, name: str) -> bytes:
        """Read a file that the seal vouches for.

        Raises:
            StoreError: the file is missing or is not the one that was sealed.
        """
        return as_sealed(self.path / name, name, self.read_file(name), self._digests)

    def read_file(self, name: str) -> bytes:
        """Read a small file below the store's root, which no link leads to.

        Raises:
            StoreError: the file is missing, not regular, or behind a link.
        """
        if self._read is not None:
            return self._read(name)
        path = self.folders.check(name)
        return self.shards.with_room(lambda: files.read_file(path, at_most=files.MAX_TABLE_BYTES))

    def committed(self, split: str, shard: int, name: str) -> bytes:
        """A small file of a shard, compared with the shard's commit record.

        Raises:
            StoreError: the file or the commit record is missing or damaged.
        """
        data = self.read_file(name)
        facts = self.commit(split, shard)["objects"].get(name, {})
        if facts.get("sha256") != files.sha256(data):
            raise StoreError(self.path / name, "is not the file that was committed", REPAIR)
        return data

    def checks(self, split: str, tap: int, shard: int) -> UInt32[np.ndarray, "n"]:
        """The stored checksums of one shard's records."""
        name = layout.check_object(split, tap, shard)
        return self._values(name, self.committed(split, shard, name), "<u4", self.plan.shard_rows)

    def open_shard(self, name: str, held: int, record_bytes: int) -> FileShard:
        """Open a file of ``held`` records, whose size is looked at.

        Raises:
            StoreError: the file is missing, behind a link, or of another size.
        """
        file = FileShard(self.folders.check(name), record_bytes)
        want = layout.shard_file_bytes(held, self.plan.shard_rows, record_bytes)
        if file.nbytes != want:
            raise StoreError(file.path, f"is {file.nbytes} bytes, not {want}", REPAIR)
        return file

    def status(self, split: str) -> UInt8[np.ndarray, "n"]:
        """Status of each row of a split, as the seal sums it up: no file of a shard is opened.

        Raises:
            StoreError: the seal is not as losa writes it.
        """
        rows = self.plan.splits[split].rows
        status = np.full(rows, OK_STATUS, dtype=np.uint8)
        try:
            skipped = np.array(self.sealed["splits"][split]["skipped"], dtype=np.int64)
            row, code = skipped.reshape(-1, 2).T
            status[row] = code.astype(np.uint8)
            is_sound = bool(((row >= 0) & (code > OK_STATUS) & (status[row] == code)).all())
        except (KeyError, TypeError, ValueError, IndexError, OverflowError):
            is_sound = False
        if not is_sound:
            what = f"does not say which rows of {split} were skipped"
            raise StoreError(self.path / layout.SEALED_OBJECT, what, REPAIR)
        return status

    def column(self, split: str, name: str, dtype: str) -> Shaped[np.ndarray, "n"]:
        """A column of a split's samples, in row order.

        Raises:
            StoreError: its file is missing or damaged, or names samples that there are not.
        """
        file, item = f"{split}/sample/{name}/c.0", self.plan.splits[split]
        values = self._values(file, self.read_small(file), dtype, item.rows)
        if name == "source_index" and not (values.min() >= 0 and values.max() < item.samples):
            raise self.damage(file, "is no order of the samples")
        if name == "view" and values.max() >= self.plan.views_of(split):
            raise self.damage(file, "names views that there are not")
        return values

    def statistic(self, tap: int, name: str) -> Float32[np.ndarray, "d"]:
        """A statistic of a tap's channels.

        Raises:
            StoreError: its file is missing or damaged.
        """
        file = layout.statistic_object(tap, name)
        return self._values(file, self.read_small(file), "<f4", self.plan.spec.channels)

    def samples(self, split: str) -> tuple[Sample, ...]:
        """The listed samples of a split, in the data set's order.

        Raises:
            StoreError: their table is missing or damaged.
        """
        name = layout.samples_object(split)
        try:
            listed = tuple(parse_samples(self.read_small(name)))
        except ValueError:
            listed = ()
        if len(listed) != self.plan.splits[split].samples:
            raise self.damage(name, "is not the plan's table of samples")
        return listed

    def damage(self, name: str, what: str) -> StoreError:
        """The error of something being wrong with a file of the store."""
        return StoreError(self.path / name, what, REPAIR)

    def shard_rows(self, split: str) -> int:
        """Rows of a full shard: the same in every split of a store."""
        assert split in self.plan.splits
        return self.plan.shard_rows

    def held(self, split: str, shard: int) -> int:
        """Rows that a shard holds."""
        rows = self.plan.splits[split].rows
        first, stop = layout.shard_span(shard, rows, self.plan.shard_rows)
        return stop - first

    def commit(self, split: str, shard: int) -> Mapping[str, Any]:
        """The commit record of a shard.

        Raises:
            StoreError: it is missing or damaged.
        """
        key = (split, shard)
        if key not in self._commits:
            name = layout.commit_object(split, shard)
            record = files.parse_json(self.path / name, self.read_small(name))
            objects = record.get("objects")
            if not (isinstance(objects, dict) and set(_kinds(objects.values())) <= {dict}):
                raise self.damage(name, "is no commit record")
            self._commits[key] = record
        return self._commits[key]

    def _values(self, name: str, data: bytes, dtype: str, count: int) -> Shaped[np.ndarray, "n"]:
        """The numbers in a file's content, which a seal that was forged may vouch for."""
        want = count * np.dtype(dtype).itemsize
        if len(data) != want:
            raise self.damage(name, f"is {len(data)} bytes, not {want}")
        return np.frombuffer(data, dtype=dtype)


def _kinds(values: Iterable[Any]) -> list[type]:
    return [type(value) for value in values]


def as_sealed(path: Path, name: str, data: bytes, digests: Mapping[str, Any]) -> bytes:
    """The content of a small file, whose sha256 must be the seal's.

    Raises:
        StoreError: it is another.
    """
    if files.sha256(data) != digests.get(name):
        raise StoreError(path, "is not the file that was sealed", REPAIR)
    return data
