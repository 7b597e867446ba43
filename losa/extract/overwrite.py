"""``--overwrite``: the old store is moved aside, and deleted once the new one is sealed."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from losa.errors import LockedError, MismatchError, ResourceError
from losa.store import files, layout, lock
from losa.store.reader import check_format

log = logging.getLogger(__name__)


@contextmanager
def set_aside(path: Path, plan_digest: str, *, active: bool) -> Iterator[None]:
    """While open, ``path`` is free for a new store, or holds the beginning of this very one.

    The old store lies in ``.<name>.old`` meanwhile. If nothing new came into being it is put back.
    Unless ``active`` nothing is moved: that an earlier one was interrupted is told, no more.

    Raises:
        StoreError: ``path`` holds something that is no losa store.
        MismatchError: an interrupted one began a store of another plan at ``path``.
        LockedError: somebody writes, mends or cleans the store at ``path``.
        ResourceError: the place cannot be written.
    """
    aside = path.with_name(f".{path.name}.old")
    if not active:
        _tell_of(aside, path)
        yield
        return
    if path.exists():
        _make_room(path, aside, plan_digest)
    try:
        yield
    except BaseException:
        if aside.exists() and not path.exists():
            # Somebody else may be quicker, and put it back or begin the new store.
            with suppress(OSError):
                aside.rename(path)
        raise
    if aside.exists():
        _delete_replaced(aside, path)


def _tell_of(aside: Path, path: Path) -> None:
    if aside.exists():
        todo = f"repeat it with its flags, or move this folder back to {path.name} to undo it"
        log.warning("%s was left by an --overwrite that was interrupted; %s", aside, todo)


def _make_room(path: Path, aside: Path, plan_digest: str) -> None:
    check_format(path)
    if aside.exists() and not _is_sealed(path):
        # An interrupted --overwrite began this one: hours of work, so it is never deleted here.
        _check_goes_on(path, aside, plan_digest)
        return
    with _guarded(path), files.named(path):
        if aside.exists():
            _delete(aside, path)
        path.rename(aside)
    log.info("%s is kept as %s until its replacement is sealed", path, aside)


def _check_goes_on(path: Path, aside: Path, plan_digest: str) -> None:
    attributes = files.read_json(path / layout.ROOT_OBJECT)["attributes"]
    if attributes["losa"].get("plan") != plan_digest:
        raise MismatchError(
            path,
            f"was begun by an --overwrite with other flags, and {aside.name} is what it replaces",
            "go on with its flags, or move one of them to another place",
        )


def _guarded(path: Path) -> AbstractContextManager[None]:
    """Keep writers away; without the folder that they lock, and need, there are none."""
    return lock.alone(path) if (path / ".losa").is_dir() else nullcontext()


def _delete_replaced(aside: Path, path: Path) -> None:
    """Delete the old store, unless another --overwrite is about to replace the new one by now."""
    try:
        with lock.alone(path), files.named(aside):
            if _is_sealed(path) and aside.exists():
                _delete(aside, path)
    except (LockedError, ResourceError) as error:
        log.warning("%s is not needed any more, and losa gc removes it: %s", aside, error)


def _delete(aside: Path, path: Path) -> None:
    """Delete a store under a name that no other process looks for."""
    doomed = path.with_name(f".{path.name}.{files.owner_tag()}")
    aside.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _is_sealed(path: Path) -> bool:
    return (path / layout.SEALED_OBJECT).exists()
