"""A larger store for a sealed one: built beside it out of its files, and put in its place.

The sealed store stays as it is until the larger one is sealed too, so a crash at any moment leaves
one that can be read. Source: docs/store-format.md, section "Extension".
"""

from __future__ import annotations

import errno
import logging
import shutil
import stat
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np

from losa.errors import MismatchError, StoreError
from losa.features import Sample
from losa.store import files, layout, lock, system
from losa.store.damage import shard_objects
from losa.store.plan import Plan, differing_fields
from losa.store.reader import Store, check_format, open_store
from losa.store.sealed import REPAIR
from losa.store.skeleton import statistics_of
from losa.store.space import check_space
from losa.store.writer import create_store, sweep_beside

log = logging.getLogger(__name__)
COPY_BYTES: Final = 2**20
_NO_LINKS: Final = (*system.NO_SUCH_CALL, errno.EXDEV)


def extension_of(path: Path) -> Path:
    """Where the extension of a store grows.

    Example:
        >>> extension_of(Path("photos.zarr"))
        PosixPath('.photos.zarr.extended')
    """
    return path.with_name(f".{path.name}.extended")


def begun_extension(path: Path, wanted: Plan) -> Plan | None:
    """The plan of the extension that was begun before, if one was; its exponents are known.

    Raises:
        MismatchError: it is one by other taps or splits, or of a store that is not there any more.
    """
    extended = extension_of(path)
    if not extended.exists():
        return None
    check_format(extended)
    found = _plan_of(extended)
    fields = list(differing_fields(wanted.identity, found.identity))
    if fields:
        raise MismatchError(
            extended,
            "is another extension that was begun (asked / begun): " + ", ".join(fields),
            "finish that one with the flags it was begun with, or remove this folder",
        )
    _check_extends_this(extended, path)
    return found


def finished_extension(path: Path, wanted: Plan) -> Store | None:
    """The larger store, if it has taken its place already: by another process that finished it."""
    if extension_of(path).exists() or not _is_sealed(path):
        return None
    store = open_store(path)
    return store if store.plan.holds(wanted) else None


def begin_extension(
    path: Path,
    plan: Plan,
    samples: Mapping[str, Sequence[Sample]],
    statistics: Mapping[str, np.ndarray],
    *,
    durable: bool = True,
) -> None:
    """Publish the beginning of a larger store beside a sealed one, with all its features.

    ``plan``, ``samples`` and ``statistics`` are those of the larger store. Features are shared, not
    copied, where the file system has hard links: files of a store are never written to.

    Raises:
        StoreError: the sealed store is damaged.
        LockedError: another process began an extension meanwhile.
        ResourceError: the place cannot be written.
    """
    old = open_store(path)
    assert plan.holds(old.plan)
    inheritance = _Inheritance(old, plan)
    create_store(
        *(extension_of(path), plan, samples, statistics),
        durable=durable,
        furnish=inheritance.pass_on,
    )


def finish_extension(path: Path) -> None:
    """Put a sealed extension in the place of its store, and delete the old one.

    Also finishes what was interrupted in the middle of this. Nothing happens where there is no
    extension, or one that is not sealed yet.

    Raises:
        LockedError: somebody writes, mends or cleans one of both.
        MismatchError: what lies beside the store is no extension of it.
        ResourceError: the place cannot be written.
    """
    sweep_beside(path)
    places = path, extension_of(path), _old_name(path)
    if not places[-1].exists() and not (path.exists() and _is_sealed(places[1])):
        return
    with ExitStack() as held, files.named(path):
        for place in places:
            if place.exists():
                held.enter_context(lock.alone(place))
        _settle(*places)


class _Inheritance:
    """The files of a sealed store on their way into its extension."""

    def __init__(self, old: Store, plan: Plan) -> None:
        self._old = old
        self._has_links = True
        self._is_complete = plan.spec.taps == old.spec.taps

    def pass_on(self, root: Path) -> None:
        """Share every file of features, and say which shards are complete.

        The commit record of a shard that gets more taps waits for them in a folder of its own.
        """
        plan = self._old.plan
        if not self._is_complete:
            system.current.mkdir(root / layout.INHERITED_FOLDER)
        for split, item in plan.splits.items():
            if not self._is_complete:
                system.current.mkdir(root / layout.INHERITED_FOLDER / split)
            for shard in range(layout.shard_count(item.rows, plan.shard_rows)):
                self._pass_on(root, split, shard)

    def _pass_on(self, root: Path, split: str, shard: int) -> None:
        objects = self._old.files.commit(split, shard)["objects"]
        for name in shard_objects(self._old.plan, split, shard):
            self._share(self._sound(name, objects.get(name, {})), root / name)
        commit = layout.commit_object(split, shard)
        kept = commit if self._is_complete else layout.inherited_object(split, shard)
        self._share(self._old.path / commit, root / kept)

    def _sound(self, name: str, facts: Mapping[str, Any]) -> Path:
        """Where a file lies that is what its commit record says, as far as a look can tell."""
        path = self._old.files.folders.check(name)
        try:
            found = path.lstat()
        except FileNotFoundError:
            raise StoreError(path, "is missing", REPAIR) from None
        if not stat.S_ISREG(found.st_mode):
            raise StoreError(path, "is not a regular file", REPAIR)
        if found.st_size != facts.get("bytes"):
            what = f"is {found.st_size} bytes, not {facts.get('bytes')}"
            raise StoreError(path, what, REPAIR)
        return path

    def _share(self, source: Path, target: Path) -> None:
        if self._has_links:
            try:
                system.current.link(source, target)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                self._begin_copying()
            else:
                return
        _copy(source, target)

    def _begin_copying(self) -> None:
        old = self._old
        check_space(old.path, old.plan)
        log.warning("%s: no hard links here, its features are copied", old.path)
        self._has_links = False


def _copy(source: Path, target: Path) -> None:
    handle = system.current.create(target)
    try:
        with source.open("rb", buffering=0) as file:
            while block := file.read(COPY_BYTES):
                files.write_all(handle, memoryview(block))
    finally:
        system.current.close(handle)


def _settle(path: Path, extended: Path, old: Path) -> None:
    """Whatever was done of a swap before, do the rest."""
    if not path.exists():
        system.current.rename(extended if _is_sealed(extended) else old, path)
        system.current.sync_folder(path.parent)
    if _is_sealed(extended) and not _plan_of(path).holds(_plan_of(extended)):
        _swap(path, extended, old)
    if _is_sealed(extended):  # by now this is the old store
        _discard(extended, path)
    if old.exists():
        _discard(old, path)


def _swap(path: Path, extended: Path, old: Path) -> None:
    """Exchange a store and its extension, in one act where the file system can."""
    if not _plan_of(extended).holds(_plan_of(path)):
        what = f"is no extension of {path.name}"
        raise MismatchError(extended, what, "remove this folder, then run the same command again")
    _check_extends_this(extended, path)
    for leftover in (extended / layout.TMP_FOLDER).glob("*"):
        # Of who was killed just after giving the seal its name; a sealed store holds none.
        system.current.unlink(leftover)
    # Whatever --durability says: what is deleted after this was safe on the disk.
    files.sync_tree(extended)
    try:
        system.current.exchange(extended, path)
    except OSError as error:
        if error.errno not in system.NO_SUCH_CALL:
            raise
        system.current.rename(path, old)
        system.current.sync_folder(path.parent)
        system.current.rename(extended, path)
    system.current.sync_folder(path.parent)


def _discard(left: Path, path: Path) -> None:
    """Delete a store that another one holds in full, under a name that nobody takes for a store."""
    if not (_is_sealed(path) and _plan_of(path).holds(_plan_of(left))):
        what = f"was put aside for an extension, and {path.name} is another store now"
        raise MismatchError(left, what, "move one of them to another place")
    _check_extends_this(path, left)
    doomed = path.with_name(f".{path.name}.{files.owner_tag()}")
    system.current.rename(left, doomed)
    system.current.sync_folder(path.parent)
    shutil.rmtree(doomed, ignore_errors=True)


def _check_extends_this(extended: Path, path: Path) -> None:
    """Refuse an extension of another store of the same plan, whose features may be others.

    Raises:
        MismatchError: numerics, exponents, calibration or records of what both have differ.
    """
    name = _other_object(extended, path)
    if name is not None:
        raise MismatchError(
            extended,
            f"and {path} have the same plan, and not the same features ({name} differs)",
            "remove the one that is out of date or move it away, then run the same command again",
        )


def _other_object(extended: Path, path: Path) -> str | None:
    """The first file of a store that its extension says otherwise."""
    small, large = _plan_of(path), _plan_of(extended)
    exponents = large.with_taps(small.spec.taps).exponents
    if (large.numerics, exponents) != (small.numerics, small.exponents):
        return layout.PLAN_OBJECT
    for tap in small.spec.taps:
        for statistic in statistics_of(small):
            name = layout.statistic_object(tap, statistic)
            if files.read_file(extended / name) != files.read_file(path / name):
                return name
    for split, item in small.splits.items():
        for shard in range(layout.shard_count(item.rows, small.shard_rows)):
            if not _passes_on(extended, path, (split, shard)):
                return layout.commit_object(split, shard)
    return None


def _passes_on(extended: Path, path: Path, where: tuple[str, int]) -> bool:
    """Whether all commit records that an extension has of a shard say what the store's says."""
    commit = layout.commit_object(*where)
    if not (path / commit).exists():  # damaged and set aside: nothing is said
        return True
    record = files.read_json(path / commit)
    told = [
        name for name in (commit, layout.inherited_object(*where)) if (extended / name).exists()
    ]
    return all(_says_as_much(files.read_json(extended / name), record) for name in told)


def _says_as_much(larger: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    try:
        common = {name: larger["objects"].get(name) for name in record["objects"]}
        return bool(common == record["objects"] and larger["skipped"] == record["skipped"])
    except (KeyError, TypeError, AttributeError):
        return False


def _old_name(path: Path) -> Path:
    """What a store is called between two renames, where names cannot be exchanged."""
    return path.with_name(f".{path.name}.extending")


def _is_sealed(path: Path) -> bool:
    return (path / layout.SEALED_OBJECT).exists()


def _plan_of(path: Path) -> Plan:
    plan_path = path / layout.PLAN_OBJECT
    return Plan.from_json(files.read_json(plan_path), plan_path)
