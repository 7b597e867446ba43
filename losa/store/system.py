"""The system calls that write a store, gathered in one object that a test can swap.

Source: docs/store-format.md, section "Commit protocol".
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

log = logging.getLogger(__name__)

NO_SUCH_CALL: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK)
"""What a file system answers that knows no hard links, or no rename that spares its target."""

_AT_FDCWD: Final = -100
_RENAME_NOREPLACE: Final = 1
_RENAME_EXCHANGE: Final = 2
_SYNC_FILE_RANGE_WRITE: Final = 2
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class System:
    """Every act by which a store changes on disk; errors are the ``OSError`` of the call."""

    def create(self, path: Path) -> int:
        """Open a new file for writing; there must be none of that name."""
        return os.open(path, _CREATE, 0o644)

    def write(self, handle: int, data: memoryview) -> int:
        """Write some of ``data`` and say how many bytes it were."""
        return os.write(handle, data)

    def begin_sync(self, handle: int, offset: int, count: int) -> None:
        """Let the disk begin with what was written, so that a later fsync finds little to do.

        Nothing is promised by it, and nothing is lost where the system does not know it.
        """
        call = _c_library("sync_file_range")
        if call is not None:
            call(handle, ctypes.c_int64(offset), ctypes.c_int64(count), _SYNC_FILE_RANGE_WRITE)

    def fsync(self, handle: int) -> None:
        """Make what was written to an open file survive a power cut."""
        os.fsync(handle)

    def close(self, handle: int) -> None:
        """Close a file."""
        os.close(handle)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name; never overwrites."""
        os.link(source, target)

    def unlink(self, path: Path) -> None:
        """Remove a name, if it is there."""
        path.unlink(missing_ok=True)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file or folder another name; a file or an empty folder of that name is gone."""
        source.rename(target)

    def rename_new(self, source: Path, target: Path) -> None:
        """Give a file another name, unless something has that name."""
        _rename_as(source, target, _RENAME_NOREPLACE)

    def exchange(self, first: Path, second: Path) -> None:
        """Let two files or folders swap their names in one act."""
        _rename_as(first, second, _RENAME_EXCHANGE)

    def mkdir(self, path: Path) -> None:
        """Make a folder; its parent is there."""
        path.mkdir()

    def rmdir(self, path: Path) -> None:
        """Remove an empty folder, if it is there."""
        with suppress(FileNotFoundError):
            path.rmdir()

    def sync_folder(self, path: Path) -> None:
        """Make the names in a folder survive a power cut."""
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def sync_file(self, path: Path) -> None:
        """Make a file that is not open survive a power cut."""
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def place(self, temporary: Path, target: Path) -> None:
        """Move a file to a name that nothing has, by the first of three ways that works here.

        ``link`` is the create-once that also holds on network file systems; where there are no hard
        links, a rename that spares its target; where there is neither, it is looked before an
        ordinary rename, which holds for one writer at a time.

        Raises:
            FileExistsError: something has that name; the file stays where it is.
        """
        if self._is_linked(temporary, target):
            self.unlink(temporary)
            return
        try:
            self.rename_new(temporary, target)
        except OSError as error:
            if error.errno not in NO_SUCH_CALL:
                raise
        else:
            return
        _warn_of_one_writer(target.parent)
        # Not by an empty file of that name first: a crash would leave it, and a seal is its name.
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        self.rename(temporary, target)

    def _is_linked(self, temporary: Path, target: Path) -> bool:
        """Whether a file has got a second name; not where the file system knows no links."""
        try:
            self.link(temporary, target)
        except FileExistsError:
            # A network file system whose answer got lost asks again, and meets its own first link.
            # What was in the way may be gone by now.
            with suppress(FileNotFoundError):
                if temporary.samefile(target):
                    return True
            raise
        except OSError as error:
            if error.errno not in NO_SUCH_CALL:
                raise
            return False
        return True


current = System()
"""What the store writes through; only tests put another in its place."""


def _rename_as(source: Path, target: Path, flag: int) -> None:
    """Rename in one of the ways that Python has no name for."""
    call = _c_library("renameat2")
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    names = os.fsencode(source), os.fsencode(target)
    if call(_AT_FDCWD, names[0], _AT_FDCWD, names[1], flag) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


@cache
def _c_library(name: str) -> Any:
    """A function of the C library that Python has no name for; ``None`` where there is none."""
    try:
        return getattr(ctypes.CDLL(None, use_errno=True), name)
    except (OSError, AttributeError):
        return None


def _warn_of_one_writer(folder: Path) -> None:
    device = folder.stat().st_dev
    if device not in _warned:
        _warned.add(device)
        log.warning("%s has no atomic create: let only one process write this store", folder)


_warned: Final[set[int]] = set()
"""File systems whose weakness was told: once, not for every folder of a store."""
