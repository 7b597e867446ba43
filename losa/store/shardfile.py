"""Open shards of a store: no more than descriptors allow, never through a link, errors by name."""

from __future__ import annotations

import errno
import mmap
import os
import resource
import stat
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Final, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from losa.errors import ResourceError, StoreError
from losa.store import files

ShardKey = tuple[str, bool]
"""Name of the file below the store's root, and whether it is mapped."""

Places = Sequence[tuple[int, int]]
"""Pairs of a position in the caller's memory and a slot of the shard."""

_Made = TypeVar("_Made")
_NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE)


@runtime_checkable
class Shard(Protocol):
    """A shard that records are copied from; it holds one descriptor."""

    def copy(self, places: Places, records: UInt8[np.ndarray, "b ..."]) -> None:
        """Copy for every pair (position, slot) the shard's record ``slot`` to ``records``."""
        ...


class FileShard:
    """A shard read by ``preadv``; closed when the last one who reads from it lets go.

    Its records begin at byte ``base`` of the file, which may be open as ``handle`` already.
    """

    def __init__(
        self, path: Path, record_bytes: int, *, base: int = 0, handle: int | None = None
    ) -> None:
        self.path = path
        self._record_bytes = record_bytes
        self._base = base
        self._handle = files.open_regular(path) if handle is None else _duplicate(path, handle)

    @property
    def nbytes(self) -> int:
        """Size of the file."""
        return os.fstat(self._handle).st_size

    def copy(self, places: Places, records: UInt8[np.ndarray, "b ..."]) -> None:
        """Read records one by one, piece by piece where one call stops short.

        Raises:
            StoreError: the file ends before a record does.
            ResourceError: the disk fails.
        """
        for position, slot in places:
            self._read(slot, records[position])

    def _read(self, slot: int, record: UInt8[np.ndarray, "..."]) -> None:
        rest, offset = record.data, self._base + slot * self._record_bytes
        while rest:
            try:
                count = os.preadv(self._handle, (rest,), offset)
            except OSError as error:
                raise files.resource_error(self.path, error) from error
            if count == 0:
                raise StoreError(self.path, "ended while it was read", "run losa verify")
            rest, offset = rest[count:], offset + count

    def advise(self, first: int, stop: int, advice: int) -> None:
        """Tell the kernel what becomes of some records; what it makes of that is its own affair.

        Of ``POSIX_FADV_DONTNEED`` only whole pages count: the outer ones hold other records too.
        """
        start, end = (self._base + slot * self._record_bytes for slot in (first, stop))
        if advice == os.POSIX_FADV_DONTNEED:
            page = mmap.PAGESIZE
            start, end = -(-start // page) * page, end // page * page
        if start < end:
            with suppress(OSError):
                os.posix_fadvise(self._handle, start, end - start, advice)

    def mapped(self, held: int) -> MappedShard:
        """The file's ``held`` records as a mapping, which keeps a descriptor of its own.

        Raises:
            ResourceError: the file cannot be mapped.
        """
        size, start = held * self._record_bytes, self._base % mmap.ALLOCATIONGRANULARITY
        try:
            content = mmap.mmap(
                self._handle, start + size, prot=mmap.PROT_READ, offset=self._base - start
            )
        except OSError as error:
            raise files.resource_error(self.path, error) from error
        records = np.frombuffer(content, np.uint8, size, start).reshape(held, self._record_bytes)
        return MappedShard(self.path, content, records, self._base + size)

    def __del__(self) -> None:
        # Without a handle, opening it has failed.
        if hasattr(self, "_handle"):
            os.close(self._handle)


class MappedShard:
    """A shard in the page cache, for records that were read from the disk before.

    Args:
        path: the file, for errors.
        content: the mapping, with a descriptor of its own.
        records: the records within it.
        nbytes: what the file must at least be long.
    """

    def __init__(
        self, path: Path, content: mmap.mmap, records: UInt8[np.ndarray, "n ..."], nbytes: int
    ) -> None:
        self._path = path
        self._content = content
        self._records = records
        self._nbytes = nbytes

    def copy(self, places: Places, records: UInt8[np.ndarray, "b ..."]) -> None:
        """Copy records: in one call of numpy when all that is asked for lies in this shard.

        Raises:
            StoreError: the file is shorter than it was.
        """
        # A mapping gives zeros behind the end of its file, and beyond that page ends the process.
        if self._content.size() < self._nbytes:
            raise StoreError(self._path, "has been cut while it was read", "run losa verify")
        if len(places) == len(records):
            slots = [slot for _, slot in places]
            np.take(self._records, slots, axis=0, out=records, mode="clip")
            return
        for position, slot in places:
            records[position] = self._records[slot]


class ShardTable:
    """The most recently used open shards of a store, bounded by the process's descriptors."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._shards: OrderedDict[ShardKey, Shard] = OrderedDict()
        self._lock = Lock()

    def take(self, key: ShardKey, make: Callable[[], Shard]) -> Shard:
        """The open shard of a key, made when it is not there."""
        with self._lock:
            found = self._shards.get(key)
            if found is not None:
                self._shards.move_to_end(key)
                return found
        made = self.with_room(make)
        with self._lock:
            kept = self._shards.setdefault(key, made)
            while len(self._shards) > self._limit:
                self._shards.popitem(last=False)
            return kept

    def discard(self, key: ShardKey) -> None:
        """Let go of a shard."""
        with self._lock:
            self._shards.pop(key, None)

    def with_room(self, make: Callable[[], _Made]) -> _Made:
        """What ``make`` returns; when descriptors are short, all shards are let go of first.

        Raises:
            ResourceError: descriptors are short all the same, or ``make`` fails otherwise.
        """
        try:
            return make()
        except ResourceError as error:
            # No name for its cause here: a traceback would keep what it has opened, open.
            if not _lacks_descriptor(error):
                raise
        with self._lock:
            self._shards.clear()
        return make()


class Folders:
    """The folders of a store, each looked at once: a link among them leads out of the store."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._plain: set[str] = set()

    def check(self, name: str) -> Path:
        """The path of a store's file, once every folder on the way to it is known to be no link.

        Raises:
            StoreError: a folder is a symbolic link; it is named.
        """
        folder, _, _ = name.rpartition("/")
        if folder in self._plain:
            return self._root / name
        path = self._root
        for part in folder.split("/"):
            path /= part
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError:
                # Whoever opens the file says that it is missing.
                return self._root / name
            except OSError as error:
                raise files.resource_error(path, error) from error
            if stat.S_ISLNK(mode):
                todo = "a store holds regular files and folders"
                raise StoreError(path, "is a symbolic link", todo)
        self._plain.add(folder)
        return self._root / name


def _duplicate(path: Path, handle: int) -> int:
    try:
        return os.dup(handle)
    except OSError as error:
        raise files.resource_error(path, error) from error


def _lacks_descriptor(error: ResourceError) -> bool:
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in _NO_DESCRIPTOR


def descriptor_limit() -> int:
    """Shards that a store keeps open: a quarter of what the process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(8, min(4096, soft // 4))
