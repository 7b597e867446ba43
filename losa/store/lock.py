"""One lock a store: any number of writers share it, and whoever mends the store has it alone.

It guards against mistakes on one machine. What several machines do to a store is safe by the commit
protocol, which does not rest on it: not every file system locks.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from losa.errors import LockedError
from losa.store import files

log = logging.getLogger(__name__)
_NO_LOCKS: Final = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EINVAL)


@contextmanager
def shared(root: Path) -> Iterator[None]:
    """Hold a store's lock together with other writers.

    Raises:
        LockedError: somebody is mending or cleaning the store, or has replaced it just now.
    """
    with _held(root, fcntl.LOCK_SH, "is being repaired or cleaned"):
        yield


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Hold a store's lock alone.

    Raises:
        LockedError: somebody writes, mends or cleans the store, or has replaced it just now.
    """
    with _held(root, fcntl.LOCK_EX, "is being written, repaired or cleaned"):
        yield


@contextmanager
def turn(folder: Path) -> Iterator[bool]:
    """Hold a folder's lock for a moment, if nobody else does; says whether it is held.

    Where the file system knows no locks, everybody holds it.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield _is_locked(folder, handle, fcntl.LOCK_EX)
    finally:
        os.close(handle)


@contextmanager
def turn_by_file(path: Path) -> Iterator[bool]:
    """As :func:`turn`, by a file that is made for it and goes when whoever held it is done.

    For folders on NFS, which locks only files that are open for writing.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise files.resource_error(path, error) from error
    is_held = False
    try:
        # One that was removed before we locked it keeps nobody out.
        is_held = _is_locked(path, handle, fcntl.LOCK_EX) and _is_at(path, handle)
        yield is_held
    finally:
        if is_held:
            path.unlink(missing_ok=True)
        os.close(handle)


def _is_at(path: Path, handle: int) -> bool:
    """Whether an open file or folder still has its name."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))  # noqa: PTH116 -- beside os.fstat
    except OSError:
        return False


@contextmanager
def _held(root: Path, kind: int, what: str) -> Iterator[None]:
    try:
        handle = os.open(root / ".losa", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise files.resource_error(root / ".losa", error) from error
    try:
        if not _is_locked(root, handle, kind):
            raise LockedError(root, what, "wait for the other process to end")
        _check_place(root, handle)
        yield
    finally:
        os.close(handle)


def _is_locked(path: Path, handle: int, kind: int) -> bool:
    """Lock an open file or folder, unless somebody else has it locked."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise files.resource_error(path, error) from error
        log.debug("%s cannot be locked: %s", path, error)
    return True


def _check_place(root: Path, handle: int) -> None:
    """Refuse a lock on a store that was moved away between the opening and the locking."""
    if not _is_at(root / ".losa", handle):
        what = "was moved or replaced by another process"
        raise LockedError(root, what, "run the same command again")
