"""Removing what dead processes left behind, and what repairs set aside long ago.

Only what is certainly nobody's goes: what may be another machine's stays.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from losa.errors import StoreError
from losa.features import is_whole
from losa.store import files, layout, lock, system
from losa.store.claims import Claims, ShardTask
from losa.store.evidence import gather_evidence
from losa.store.verify import verify_store

DAY_SECONDS: Final = 86_400.0
_DEAD: Final = "its process is gone"


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file or folder that nobody needs: its path below the store, or beside it (``../``)."""

    path: str
    bytes: int
    why: str


@dataclass(frozen=True, slots=True)
class Cleaning:
    """What was removed, or would be."""

    removed: tuple[Leftover, ...]
    acted: bool

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        removed = [asdict(leftover) for leftover in self.removed]
        total = sum(leftover.bytes for leftover in self.removed)
        return {"removed": removed, "bytes": total}


def clean_store(
    path: Path, *, older_than_days: float = 7.0, act: bool = False, now: float | None = None
) -> Cleaning:
    """Remove leftovers of a store, or list them: nothing is changed unless ``act``.

    ``now`` is the time in seconds since the epoch by which the age of the quarantine is told.

    Raises:
        StoreError: there is no store at ``path``.
        LockedError: somebody writes, mends or cleans the store.
        ResourceError: the disk fails.
    """
    gather_evidence(path).sound_plan  # noqa: B018 -- refuses what is no store
    before = (time.time() if now is None else now) - older_than_days * DAY_SECONDS
    with lock.alone(path), files.named(path):
        found = {*_temporaries(path), *_partials(path), *_claims(path), *_siblings(path)}
        aside = set(_quarantines(path, before))
        if aside and _is_sound(path, found):
            found |= aside
        removed = sorted(found, key=lambda leftover: leftover.path)
        if act:
            for leftover in removed:
                _remove(path, leftover)
    return Cleaning(tuple(removed), act)


def _temporaries(root: Path) -> Iterator[Leftover]:
    for entry in _entries(root / layout.TMP_FOLDER):
        if files.tag_is_dead(entry.name):
            yield _leftover(root, entry, _DEAD)


def _partials(root: Path) -> Iterator[Leftover]:
    """What zarr was writing when it was killed; losa itself leaves nothing of the kind."""
    for folder, below, names in os.walk(root):
        place = Path(folder)
        if place.relative_to(root).as_posix() == layout.QUARANTINE_FOLDER:
            below.clear()
            continue
        for name in names:
            if name.endswith(".partial"):
                yield _leftover(root, place / name, "zarr did not finish it")


def _claims(root: Path) -> Iterator[Leftover]:
    claims = Claims(root)
    for split in _entries(root / ".losa/claims"):
        for entry in _entries(split):
            task = ShardTask(split.name, int(entry.name), 0, 0) if is_whole(entry.name) else None
            if task and claims.is_free(task):
                yield _leftover(root, entry, _DEAD)


def _is_sound(root: Path, leftovers: Iterable[Leftover]) -> bool:
    """Whether nothing is wanted back from the quarantine: the store is sealed and lacks nothing."""
    names = {leftover.path for leftover in leftovers}
    try:
        return all(problem.path in names for problem in verify_store(root, deep=False))
    except StoreError:
        return False  # its arrays are foreign, or were when what they held was set aside


def _quarantines(root: Path, before: float) -> Iterator[Leftover]:
    for entry in _entries(root / layout.QUARANTINE_FOLDER):
        if entry.lstat().st_mtime < before:
            yield _leftover(root, entry, "was set aside long ago")


def _siblings(root: Path) -> Iterator[Leftover]:
    """Stores in the making, of creators that were killed, and one that was replaced."""
    prefix = f".{root.name}."
    for entry in _entries(root.absolute().parent):
        tag = entry.name.removeprefix(prefix)
        if tag != entry.name and files.tag_is_dead(tag):
            yield Leftover(f"../{entry.name}", _size(entry), _DEAD)
    replaced = root.absolute().with_name(f"{prefix}old")
    # While nothing sound stands in its place, it may be the only store there is.
    if os.path.lexists(replaced) and gather_evidence(root).is_sealed:
        yield Leftover(f"../{replaced.name}", _size(replaced), "this store has replaced it")


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder that may be absent; a link is not followed."""
    if folder.is_symlink() or not folder.is_dir():
        return []
    return sorted(folder.iterdir())


def _leftover(root: Path, path: Path, why: str) -> Leftover:
    return Leftover(path.relative_to(root).as_posix(), _size(path), why)


def _size(path: Path) -> int:
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        return found.st_size
    return sum(
        (Path(folder) / name).lstat().st_size
        for folder, _, names in os.walk(path)
        for name in names
    )


def _remove(root: Path, leftover: Leftover) -> None:
    path = root.absolute() / leftover.path
    if leftover.path.startswith("../"):
        path = root.absolute().parent / leftover.path.removeprefix("../")
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        system.current.unlink(path)
    system.current.sync_folder(path.parent)
