"""The few file-system acts a store is made of, each atomic, and durable when asked.

They rest on the calls of :mod:`losa.store.system`, which a test can swap.
Source: docs/store-format.md, section "Commit protocol".
"""

from __future__ import annotations

import errno
import filecmp
import hashlib
import itertools
import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

from losa.errors import LosaError, ResourceError, StoreError
from losa.store import system

MAX_JSON_BYTES: Final = 64 * 2**20
MAX_TABLE_BYTES: Final = 2**31
SWEEPS: Final = 16
"""Times that a temporary file is written again after somebody who seals has swept it away."""

_counter: Iterator[int] = itertools.count()
_Made = TypeVar("_Made")


def canonical_json(value: Any) -> bytes:
    r"""Bytes of a JSON value that do not depend on who writes them: sorted keys, UTF-8, no NaN.

    Example:
        >>> canonical_json({"b": 1, "a": [True, None]})
        b'{"a":[true,null],"b":1}\n'
    """
    text = json.dumps(
        value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )
    return text.encode() + b"\n"


def sha256(data: bytes | memoryview) -> str:
    """Hexadecimal sha256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def write_atomic(
    path: Path, data: bytes, *, durable: bool = True, scratch: Path | None = None
) -> None:
    """Put ``data`` at ``path`` whole or not at all, replacing what was there.

    The temporary file lies in ``scratch`` (same file system) or else beside ``path``.

    Raises:
        ResourceError: the disk is full or the place cannot be written.
    """
    prefix = "" if scratch else f".{path.name}."

    def put() -> None:
        folder = scratch or path.parent
        temporary = write_temporary(folder, data, durable=durable, prefix=prefix)
        with _removed_on_failure(temporary):
            system.current.rename(temporary, path)
            if durable:
                system.current.sync_folder(path.parent)

    with named(path):
        _unless_swept(put)


def create_once(path: Path, data: bytes, *, scratch: Path, durable: bool) -> bool:
    """Put ``data`` at ``path`` whole, unless something is there already.

    Returns whether it was us who created it.

    Raises:
        ResourceError: the disk is full or the place cannot be written.
    """

    def create() -> bool:
        temporary = write_temporary(scratch, data, durable=durable)
        try:
            return publish(temporary, path, durable=durable)
        except FileNotFoundError:
            if path.exists():
                return False
            raise

    with named(path):
        return _unless_swept(create)


def publish(temporary: Path, path: Path, *, durable: bool) -> bool:
    """Give a finished temporary file its final name; never overwrites. Returns whether it did."""
    with _removed_on_failure(temporary):
        try:
            system.current.place(temporary, path)
        except FileExistsError:
            system.current.unlink(temporary)
            return False
        if durable:
            system.current.sync_folder(path.parent)
        return True


def settle(temporary: Path, path: Path, *, durable: bool, may_replace: Callable[[], bool]) -> None:
    """Give a finished temporary file its final name, whatever a dead writer has left there.

    An equal file is kept. Another one is replaced in one act if ``may_replace`` says so just then,
    and kept if not: whoever asks must still own the name.
    """
    with _removed_on_failure(temporary):
        try:
            system.current.place(temporary, path)
        except FileExistsError:
            if filecmp.cmp(temporary, path, shallow=False) or not may_replace():
                system.current.unlink(temporary)
                if durable:
                    system.current.sync_file(path)
            else:
                system.current.rename(temporary, path)
        if durable:
            system.current.sync_folder(path.parent)


def sync_tree(root: Path) -> None:
    """Make every file and every name below ``root`` survive a power cut.

    What another process removes meanwhile need not.
    """
    for folder, _, names in os.walk(root, topdown=False):
        for name in names:
            with suppress(FileNotFoundError):
                system.current.sync_file(Path(folder) / name)
        system.current.sync_folder(Path(folder))


def write_temporary(folder: Path, data: bytes, *, durable: bool, prefix: str = "") -> Path:
    """Write a temporary file and sync it; returns its path.

    After a sync that failed the kernel may have dropped what it could not write, and a second sync
    of the same file would say that all is well: the bytes go to a new file, once.
    """
    temporary = folder / f"{prefix}{owner_tag()}"
    with _removed_on_failure(temporary):
        handle = system.current.create(temporary)
        try:
            write_all(handle, memoryview(data))
            is_synced = not durable or _try_sync(handle)
        finally:
            system.current.close(handle)
    if is_synced:
        return temporary
    system.current.unlink(temporary)
    temporary = folder / f"{prefix}{owner_tag()}"
    with _removed_on_failure(temporary):
        write_new(temporary, data)
        system.current.sync_file(temporary)
    return temporary


def make_folders(path: Path, *, durable: bool) -> None:
    """Make a folder and those it lies in, unless they are there.

    Raises:
        OSError: the place cannot be written.
    """
    if path.is_dir():
        return
    make_folders(path.parent, durable=durable)
    with suppress(FileExistsError):
        system.current.mkdir(path)
    if durable:
        system.current.sync_folder(path.parent)


def write_new(path: Path, data: bytes) -> None:
    """Write a new file, not synced yet; there must be none of that name."""
    handle = system.current.create(path)
    try:
        write_all(handle, memoryview(data))
    finally:
        system.current.close(handle)


def open_regular(path: Path) -> int:
    """Open a regular file for reading and return its descriptor; links and devices are refused.

    Raises:
        StoreError: the file is missing, is not a regular file, or cannot be opened.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise StoreError(path, "is missing", "run losa verify on the store") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise StoreError(path, "is a symbolic link", "a store holds regular files") from None
        raise resource_error(path, error) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise StoreError(path, "is not a regular file", "a store holds regular files")
    return handle


def read_file(path: Path, *, at_most: int = MAX_JSON_BYTES) -> bytes:
    """Read a small regular file whole.

    Raises:
        StoreError: it is missing, not regular, or larger than ``at_most`` bytes.
        ResourceError: the disk fails.
    """
    handle = open_regular(path)
    try:
        size = os.fstat(handle).st_size
        if size > at_most:
            raise StoreError(path, f"is {size} bytes, at most {at_most} are read", "is it ours?")
        # Not through a file object, which costs as much as the reading: there are many such files.
        pieces = []
        while piece := _read(handle, size + 1, path):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(handle)


def _read(handle: int, count: int, path: Path) -> bytes:
    try:
        return os.read(handle, count)
    except OSError as error:
        raise resource_error(path, error) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a small JSON object; repeated keys, NaN and deep nesting are damage.

    Raises:
        StoreError: the file is missing, too large, or not such an object.
    """
    return parse_json(path, read_file(path))


def parse_json(path: Path, data: bytes) -> dict[str, Any]:
    """Parse the bytes of a JSON object that came from ``path``; see :func:`read_json`.

    Raises:
        StoreError: the bytes are not such an object.
    """
    try:
        value = json.loads(data, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise StoreError(path, f"is not sound JSON ({error})", "run losa verify") from None
    if not isinstance(value, dict):
        raise StoreError(path, "is not a JSON object", "run losa verify")
    return value


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Turn an operating-system error into the one line that names ``path``.

    Raises:
        ResourceError: the disk is full, fails, or cannot be written.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, LosaError):
            raise
        raise resource_error(path, error) from error


def resource_error(path: Path, error: OSError) -> ResourceError:
    """The one-line form of an operating-system error on ``path``."""
    todo = "check the place and its permissions, then run the same command again"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        todo = "free space or move the store, then run the same command again"
    return ResourceError(path, (error.strerror or str(error)).lower(), todo)


def owner_tag() -> str:
    """A name for a temporary file that says which process made it, unique within it."""
    return f"{os.getpid()}-{start_time(os.getpid())}-{process_space()}-{next(_counter)}"


def tag_is_dead(tag: str) -> bool:
    """Whether a name made by :func:`owner_tag` belongs to a process that is certainly gone.

    A tag of another process space may be another machine's or container's: nobody here can tell.
    """
    parts = tag.split("-")
    if len(parts) < 4 or not (parts[0].isdecimal() and parts[1].isdecimal()):  # noqa: PLR2004 -- owner_tag's fields
        return False
    return parts[2] == process_space() and start_time(int(parts[0])) != int(parts[1])


@cache
def process_space() -> str:
    """What a process number is unique in: this host, boot and namespace of processes."""
    try:
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        namespace = 0
    return sha256(f"{socket.gethostname()} {boot_id()} {namespace}".encode())[:12]


def boot_id() -> str:
    """Identity of this boot of this kernel; all zeros where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    except OSError:
        return "0" * 32


def start_time(pid: int) -> int:
    """Start time of a process in clock ticks since boot; 0 when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")  # a name may be any bytes
    except OSError:
        return 0
    fields = text[text.rindex(")") + 2 :].split()
    is_zombie = fields[0] in "ZX"
    return 0 if is_zombie else int(fields[19])


def _unless_swept(act: Callable[[], _Made]) -> _Made:
    """Do what writes a temporary file again when the file is gone before it has its name.

    Several processes may seal a store at once, and each sweeps away whatever is temporary.
    """
    for _ in range(SWEEPS):
        with suppress(FileNotFoundError):
            return act()
    return act()


def _try_sync(handle: int) -> bool:
    try:
        system.current.fsync(handle)
    except OSError:
        return False
    return True


@contextmanager
def _removed_on_failure(temporary: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(OSError):
            system.current.unlink(temporary)
        raise


def write_all(handle: int, data: memoryview) -> None:
    """Write every byte of ``data``; one call of ``write`` may stop short."""
    while data:
        data = data[system.current.write(handle, data) :]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
