"""The way to each file of a store that may be damaged: whatever blocks it is found and named once.

Verification opens tens of thousands of files, so names stay plain strings here.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Final

from losa.errors import StoreError
from losa.store import files

BLOCK_BYTES: Final = 2**20
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TODO: Final = "losa repair says what it would do"


class Ways:
    """Opens files below a store's root, never through a link; folders are looked at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._prefix = f"{os.fspath(root)}/"
        self._blocks: dict[str, tuple[str, str] | None] = {"": None}

    def path(self, name: str) -> str:
        """Where a file of the store lies."""
        return self._prefix + name

    def block(self, folder: str) -> tuple[str, str] | None:
        """What keeps files of a folder from being reached: its name, and what is wrong with it.

        Raises:
            ResourceError: the disk fails.
        """
        if folder not in self._blocks:
            above = self.block(folder.rpartition("/")[0])
            self._blocks[folder] = above or self._look(folder)
        return self._blocks[folder]

    def open(self, name: str) -> int:
        """Open a regular file for reading.

        Raises:
            StoreError: it is missing, not regular, or something blocks the way to it.
            ResourceError: the disk fails.
        """
        path = self._prefix + name
        block = self.block(name.rpartition("/")[0])
        if block:
            raise StoreError(path, f"lies below {block[0]}, which {block[1]}", _TODO)
        try:
            handle = os.open(path, _OPEN)
        except OSError:
            return files.open_regular(Path(path))  # which says what is wrong
        if stat.S_ISREG(os.fstat(handle).st_mode):
            return handle
        os.close(handle)
        return files.open_regular(Path(path))

    def read(self, name: str, at_most: int) -> tuple[bytes, int]:
        """The first ``at_most`` bytes of a file, and its size.

        Raises:
            StoreError: as :meth:`open` says.
            ResourceError: the disk fails.
        """
        handle = self.open(name)
        try:
            return os.pread(handle, at_most, 0), os.fstat(handle).st_size
        except OSError as error:
            raise files.resource_error(Path(self._prefix + name), error) from error
        finally:
            os.close(handle)

    def whole(self, name: str) -> bytes:
        """A file's content.

        Raises:
            StoreError: as :meth:`open` says, or it is larger than any table.
            ResourceError: the disk fails.
        """
        os.close(self.open(name))
        return files.read_file(Path(self._prefix + name), at_most=files.MAX_TABLE_BYTES)

    def digest(self, name: str) -> str:
        """sha256 of a file, read block by block.

        Raises:
            StoreError: as :meth:`open` says.
            ResourceError: the disk fails.
        """
        digest, offset = hashlib.sha256(), 0
        handle = self.open(name)
        try:
            while block := os.pread(handle, BLOCK_BYTES, offset):
                digest.update(block)
                offset += len(block)
        except OSError as error:
            raise files.resource_error(Path(self._prefix + name), error) from error
        finally:
            os.close(handle)
        return digest.hexdigest()

    def _look(self, folder: str) -> tuple[str, str] | None:
        try:
            mode = os.lstat(self._prefix + folder).st_mode
        except FileNotFoundError:
            return None  # whoever opens the file says that it is missing
        except OSError as error:
            raise files.resource_error(Path(self._prefix + folder), error) from error
        if stat.S_ISLNK(mode):
            return folder, "is a symbolic link"
        return None if stat.S_ISDIR(mode) else (folder, "is not a folder")
