"""Finding damage: is every file of a sealed store there, whole, and the one that was written?

Quick verification compares the digests of all small files, and existence, size and index of every
shard. Deep verification also reads every record and compares its checksum.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from losa.errors import LosaError
from losa.store import files, layout
from losa.store.damage import shard_damage, shard_objects
from losa.store.plan import Plan
from losa.store.reader import Store, open_store
from losa.store.seal import seal_bytes, small_objects

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Problem:
    """One damaged, missing or foreign file of a store, and what is wrong with it."""

    path: str
    what: str


def verify_store(
    path: Path, *, deep: bool = True, progress: Progress | None = None
) -> list[Problem]:
    """List every problem of a sealed store; an empty list means it is sound.

    ``progress`` is told bytes done and bytes in all.

    Raises:
        StoreError: the store cannot be opened at all; the file is named.
    """
    store = open_store(path)
    problems = [*_small_problems(store), *_strays(store)]
    if not problems:
        problems += _seal_problems(store)
    damaged = {problem.path for problem in problems}
    done, total = 0, store.nbytes()
    for split, item in store.plan.splits.items():
        for shard in range(layout.shard_count(item.rows, store.plan.shard_rows)):
            if layout.commit_object(split, shard) in damaged:
                continue
            problems += _shard_problems(store, split, shard, deep=deep)
            done += store.shard_nbytes(split, shard)
            if progress:
                progress(done, total)
    return sorted(set(problems), key=lambda problem: problem.path)


def _small_problems(store: Store) -> Iterator[Problem]:
    digests = store.sealed["files"]
    for name in small_objects(store.plan):
        try:
            data = store.files.read_file(name)
        except LosaError as error:
            yield _as_problem(store, error)
            continue
        if files.sha256(data) != digests.get(name):
            yield Problem(name, "is not the file that was sealed")


def _seal_problems(store: Store) -> Iterator[Problem]:
    """The seal itself, told by writing it again: only asked when all that it lists is sound."""
    if files.parse_json(store.path, seal_bytes(store.path, store.plan)) != store.sealed:
        yield Problem(layout.SEALED_OBJECT, "does not match the store")


def _strays(store: Store) -> Iterator[Problem]:
    """Files, folders and links that have no place in a store; stray folders are not entered."""
    known = _known_names(store.plan)
    known_folders = _known_folders(store.plan, known)
    for folder, below, names in os.walk(store.path, onerror=_refuse_folder):
        for name in list(below):
            path = Path(folder) / name
            found = path.relative_to(store.path).as_posix()
            if path.is_symlink():
                yield Problem(found, "is a symbolic link")
            elif found not in known_folders:
                below.remove(name)
                yield Problem(found, "does not belong to the store")
        for name in names:
            found = (Path(folder) / name).relative_to(store.path).as_posix()
            if found not in known:
                yield Problem(found, "does not belong to the store")


def _known_names(plan: Plan) -> set[str]:
    known = {layout.SEALED_OBJECT, *small_objects(plan)}
    for split, item in plan.splits.items():
        for shard in range(layout.shard_count(item.rows, plan.shard_rows)):
            known.update(shard_objects(plan, split, shard))
    return known


def _known_folders(plan: Plan, names: set[str]) -> set[str]:
    """Folders of known files, and those that are empty in a sealed store."""
    empty = {layout.TMP_FOLDER, *(layout.claim_object(split, 0) for split in plan.splits)}
    parents = {folder for name in names | empty for folder in Path(name).parents}
    return {folder.as_posix() for folder in parents} | {layout.TMP_FOLDER}


def _refuse_folder(error: OSError) -> None:
    raise files.resource_error(Path(error.filename), error) from error


def _as_problem(store: Store, error: LosaError) -> Problem:
    """What keeps a file from being read: itself, or a folder on the way to it."""
    return Problem(Path(error.subject).relative_to(store.path).as_posix(), error.what)


def _shard_problems(store: Store, split: str, shard: int, *, deep: bool) -> Iterator[Problem]:
    commit = files.read_json(store.path / layout.commit_object(split, shard))
    found = shard_damage(store.path, store.plan, (split, shard), commit["objects"], deep=deep)
    yield from (Problem(name, what) for name, what in found)
