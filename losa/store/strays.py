"""What has no place in a store: files, folders and links that the plan does not know."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from losa.features import is_whole
from losa.store import files, layout
from losa.store.damage import Problem
from losa.store.plan import Plan
from losa.store.seal import fixed_objects
from losa.store.ways import Ways

_NUMBER: Final = re.compile(r"\d+")


@dataclass(slots=True)
class _Folder:
    """What may lie in a folder: some files by name, and one series of files a shard."""

    names: set[str] = field(default_factory=set)
    member: Callable[[int], str] | None = None
    shards: int = 0
    takes_any: bool = False

    def holds(self, name: str) -> bool:
        """Whether a file of this name belongs here."""
        if self.takes_any or name in self.names:
            return True
        number = _NUMBER.search(name, name.rfind("/"))
        if self.member is None or number is None or not is_whole(number[0]):
            return False
        shard = int(number[0])
        return shard < self.shards and self.member(shard) == name


def find_strays(ways: Ways, plan: Plan, *, is_sealed: bool) -> Iterator[Problem]:
    """Name every file, folder and link that does not belong; stray folders are not entered.

    Raises:
        ResourceError: a folder cannot be listed.
    """
    known = _known_folders(plan, is_sealed=is_sealed)
    pending = [""]
    while pending:
        place = pending.pop()
        for entry in _entries(ways, place):
            name = f"{place}/{entry.name}" if place else entry.name
            is_folder = entry.is_dir(follow_symlinks=False)
            if name not in known:
                what = _stray(entry, is_folder=is_folder, is_known=known[place].holds(name))
                if what:
                    yield Problem(name, what, "stray")
            elif not is_folder:
                what = "is a symbolic link" if entry.is_symlink() else "is not a folder"
                yield Problem(name, what, "stray")
            elif name != layout.QUARANTINE_FOLDER:
                pending.append(name)


def _stray(entry: os.DirEntry[str], *, is_folder: bool, is_known: bool) -> str | None:
    """What is wrong with an entry that is no known folder; whoever reads a known file looks at it.

    A folder at the name of a file is told by whoever cannot read that file.
    """
    if is_known:
        return None
    is_link = entry.is_symlink() and not is_folder and entry.is_dir()
    return "is a symbolic link" if is_link else "does not belong to the store"


def _entries(ways: Ways, folder: str) -> list[os.DirEntry[str]]:
    path = ways.path(folder)
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except FileNotFoundError:
        return []  # a writer may just have sealed the store, and swept what is empty now
    except OSError as error:
        raise files.resource_error(Path(path), error) from error


def _known_folders(plan: Plan, *, is_sealed: bool) -> dict[str, _Folder]:
    known = {"": _Folder(), layout.QUARANTINE_FOLDER: _Folder()}
    known[layout.TMP_FOLDER] = _Folder(takes_any=not is_sealed)
    for name in [*fixed_objects(plan), layout.SEALED_OBJECT]:
        known.setdefault(_folder_of(name), _Folder()).names.add(name)
    if not is_sealed:
        known[".losa"].names.add(layout.UNSYNCED_OBJECT)
    for split, item in plan.splits.items():
        shards = layout.shard_count(item.rows, plan.shard_rows)
        for member in _series(plan, split):
            place = known.setdefault(_folder_of(member(0)), _Folder())
            place.member, place.shards = member, shards
        for name_of in (layout.claim_object, layout.inherited_object):
            known[_folder_of(name_of(split, 0))] = _Folder(takes_any=not is_sealed)
    for name in list(known):
        while name := _folder_of(name):
            known.setdefault(name, _Folder())
    return known


def _series(plan: Plan, split: str) -> Iterator[Callable[[int], str]]:
    """Names of a split's files that there is one of for every shard."""
    yield partial(layout.commit_object, split)
    yield partial(layout.status_object, split)
    for tap in plan.spec.taps:
        yield partial(layout.tokens_object, split, tap)
        yield partial(layout.check_object, split, tap)
        if plan.spec.scale_bytes:
            yield partial(layout.scale_object, split, tap)


def _folder_of(name: str) -> str:
    return name.rpartition("/")[0]
