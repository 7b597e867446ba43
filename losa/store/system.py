"""The system calls that write a store, gathered in one object that a test can swap.

Source: docs/store-format.md, section "Commit protocol".
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
from functools import cache
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

NO_SUCH_CALL: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK)
"""What a file system answers that knows no hard links, or no rename that spares its target."""

_AT_FDCWD: Final = -100
_RENAME_NOREPLACE: Final = 1
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class System:
    """Every act by which a store changes on disk; errors are the ``OSError`` of the call."""

    def create(self, path: Path) -> int:
        """Open a new file for writing; there must be none of that name."""
        return os.open(path, _CREATE, 0o644)

    def write(self, handle: int, data: memoryview) -> int:
        """Write some of ``data`` and say how many bytes it were."""
        return os.write(handle, data)

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
        call = _renameat2()
        if call is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        names = os.fsencode(source), os.fsencode(target)
        if call(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(target))

    def mkdir(self, path: Path) -> None:
        """Make a folder; its parent is there."""
        path.mkdir()

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
        # Not by an empty file of that name first: a crash would leave it, and a seal counts by name.
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        self.rename(temporary, target)

    def _is_linked(self, temporary: Path, target: Path) -> bool:
        """Whether a file has got a second name; not where the file system knows no links."""
        try:
            self.link(temporary, target)
        except FileExistsError:
            # A network file system whose answer got lost asks again, and meets its own first link.
            if not temporary.samefile(target):
                raise
        except OSError as error:
            if error.errno not in NO_SUCH_CALL:
                raise
            return False
        return True


current = System()
"""What the store writes through; only tests put another in its place."""


@cache
def _renameat2() -> ctypes._CFuncPtr | None:  # type: ignore[name-defined, unused-ignore]  # typeshed's private name
    """The C library's ``renameat2``; Python has no name for it."""
    try:
        return ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None


def _warn_of_one_writer(folder: Path) -> None:
    device = folder.stat().st_dev
    if device not in _warned:
        _warned.add(device)
        log.warning("%s has no atomic create: let only one process write this store", folder)


_warned: Final[set[int]] = set()
"""File systems whose weakness was told: once, not for every folder of a store."""
