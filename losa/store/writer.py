"""Writing a store: skeleton by one rename, rows into whole shards, commit record last, then sealed.

Source: docs/store-format.md, section "Commit protocol".
"""

from __future__ import annotations

import errno
import glob
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from losa.errors import LockedError, StoreError
from losa.features import Sample
from losa.store import files, layout, lock, system
from losa.store.claims import Claims, ShardTask
from losa.store.damage import content_damage, record_objects, size_damage
from losa.store.derived import check_commits, check_first_files, is_sound_commit
from losa.store.plan import Numerics, Plan
from losa.store.seal import seal_store
from losa.store.shardwriter import Place, ShardWriter
from losa.store.skeleton import write_skeleton

log = logging.getLogger(__name__)
SEVERAL_BOOTS: Final = "several"
"""What the note of unsynced files says when more than one boot of a machine has left some."""


def create_store(
    path: Path,
    plan: Plan,
    samples: Mapping[str, Sequence[Sample]],
    statistics: Mapping[str, np.ndarray],
    *,
    durable: bool = True,
    furnish: Callable[[Path], None] | None = None,
) -> None:
    """Publish an empty store: built aside in full, then given its name by one rename.

    ``statistics`` are the calibration's ``mean``, ``std`` and ``absmax``, each ``[k d]``, and for
    int8 the scales of the ``channel``s. Without ``durable`` a power cut may leave an empty store
    that looks whole and is not: for stores that are thrown away. ``furnish`` may put more into the
    new folder before it gets its name.

    Raises:
        LockedError: somebody else created a store at ``path`` meanwhile.
        ResourceError: the place cannot be written.
    """
    aside = path.with_name(f".{path.name}.{files.owner_tag()}")
    sweep_beside(path)
    try:
        with files.named(path):
            files.make_folders(path.parent, durable=durable)
            write_skeleton(aside, plan, samples, statistics)
            if furnish is not None:
                furnish(aside)
            if durable:
                files.sync_tree(aside)
            _publish_folder(aside, path, durable=durable)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def sweep_beside(path: Path) -> None:
    """Delete the folders that dead processes left beside a store when they built or replaced it."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if files.tag_is_dead(leftover.name.removeprefix(f".{path.name}.")):
            shutil.rmtree(leftover, ignore_errors=True)


def _publish_folder(aside: Path, path: Path, *, durable: bool) -> None:
    """Give a finished folder its name in one act, unless something has that name."""
    taken = LockedError(path, "was created by another process", "run the same command again")
    if path.exists():
        raise taken
    try:
        system.current.rename(aside, path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise taken from None
        raise
    if durable:
        system.current.sync_folder(path.parent)


@dataclass(frozen=True, slots=True)
class Clock:
    """The time that a writer waits by: seconds that only ever grow, and a way to let them pass."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class StoreWriter:
    """Writes the missing shards of a store; any number of processes may do so side by side.

    A shard is claimed, written aside, published and committed, or it is as if never begun.

    Args:
        path: the store.
        durable: sync every shard.
        clock: the time that is waited by.
        numerics: how this process computes, where that is not how the store was begun: it is
            written into the commit records of its shards.

    Raises:
        StoreError: ``path`` holds no store of this format.
        LockedError: somebody mends or cleans the store.
    """

    def __init__(
        self,
        path: Path,
        *,
        durable: bool = True,
        clock: Clock | None = None,
        numerics: Numerics | None = None,
    ) -> None:
        self.path = path
        self.durable = durable
        self._clock = clock or Clock()
        plan_path = path / layout.PLAN_OBJECT
        files.read_file(plan_path)  # what is no store is said before it is locked
        with ExitStack() as opened:
            opened.enter_context(lock.shared(path))
            # Only now: until it was locked, another store might have been put here.
            self.plan = Plan.from_json(files.read_json(plan_path), plan_path)
            self._numerics = numerics or self.plan.numerics
            self._claims = Claims(path, clock=self._clock.now)
            self._threads = ThreadPoolExecutor(min(4, len(self.plan.spec.taps)), "losa-write")
            opened.callback(self._claims.close)
            opened.callback(self._threads.shutdown)
            with files.named(path):
                self._prepare()
            self._open = opened.pop_all()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()

    @property
    def is_sealed(self) -> bool:
        """Whether nothing is left to write."""
        return (self.path / layout.SEALED_OBJECT).exists()

    def withdraw_damaged(self) -> None:
        """Take back the commit of every shard whose files are not there in full.

        A copy that stopped half-way leaves such shards; they are computed again. Where somebody
        wrote with ``--durability none`` before the machine's last start, contents are compared too,
        for a power cut may have left files of the right size that hold nothing.
        """
        boot = unsynced_boot(self.path)
        deep = boot is not None and boot != files.boot_id()
        with files.named(self.path):
            for split, shard, commit in self._commits():
                what = self._damage(split, shard, commit, deep=deep) if commit.exists() else None
                if what is not None:
                    log.warning("%s; shard %d of %s is computed again", what, shard, split)
                    system.current.unlink(commit)

    def check_whole(self) -> None:
        """Look for every file that the commit records of a sealed store name.

        Raises:
            StoreError: one is missing or of another size; it is named.
        """
        with files.named(self.path):
            for _, _, commit in self._commits():
                what = size_damage(self.path, commit)
                if what is not None:
                    raise StoreError(self.path, what, "see what losa repair would do")

    def _commits(self) -> Iterator[tuple[str, int, Path]]:
        for split, item in self.plan.splits.items():
            for shard in range(layout.shard_count(item.rows, self.plan.shard_rows)):
                yield split, shard, self.path / layout.commit_object(split, shard)

    def _damage(self, split: str, shard: int, commit: Path, *, deep: bool) -> str | None:
        try:
            record = files.read_json(commit)
        except StoreError:
            record = {}
        if not is_sound_commit(self.plan, split, shard, record):
            return f"{commit.relative_to(self.path)} is not sound"
        what = size_damage(self.path, commit)
        return content_damage(self.path, self.plan, split, shard) if not what and deep else what

    def tasks(self) -> list[ShardTask]:
        """Every shard without a commit record, in order of split and row."""
        missing = []
        for split, rows in ((name, item.rows) for name, item in self.plan.splits.items()):
            folder = self.path / ".losa/commits" / split
            with files.named(folder):
                committed = {entry.name for entry in folder.iterdir()}
            for shard in range(layout.shard_count(rows, self.plan.shard_rows)):
                if Path(layout.commit_object(split, shard)).name not in committed:
                    span = layout.shard_span(shard, rows, self.plan.shard_rows)
                    missing.append(ShardTask(split, shard, *span))
        return missing

    def claimed(self, number: int = 0, count: int = 1) -> Iterator[ShardTask]:
        """The missing shards one by one, each claimed for this process just before it is given.

        Of ``count`` processes that of a ``number`` begins with its own shards and goes on with
        those of the next. Shards that a live process holds are passed over; see
        :meth:`wait_for_others`.
        """
        for task in in_turn(self.tasks(), number, count):
            if self._take(task):
                yield task

    def wait_for_others(self, look: Callable[[], None] = lambda: None) -> bool:
        """Wait while other processes hold all that is missing; say whether a shard has come free.

        A process of this host is looked up, and one of another host is dead once its beat has stood
        still for ten minutes. ``look`` is called every second, and may end the wait by raising.
        """
        is_told = False
        while missing := self.tasks():
            if any(self._claims.is_free(task) for task in missing):
                return True
            if not is_told:
                holder = self._claims.holder(missing[0]) or "another process"
                log.info(
                    "waiting for %d shards that others write, the first: %s", len(missing), holder
                )
                is_told = True
            look()
            self._clock.sleep(1.0)
        return False

    def shard(self, task: ShardTask) -> ShardWriter:
        """A writer for one claimed shard; leave its ``with`` block to commit it."""
        return ShardWriter(self._place(task), task)

    def missing_taps(self, task: ShardTask) -> tuple[int, ...]:
        """Taps that a shard lacks: all, or the new ones of a store that is being extended."""
        return self._place(task).missing_taps(task)

    def seal(self) -> str:
        """Seal the store once every shard is committed, and return its ``store_id``.

        Raises:
            LockedError: shards are still missing, held by other live processes.
            StoreError: a file is not what it was when the store was created, or a commit record
                says what cannot be.
        """
        if self.is_sealed:
            return files.sha256(files.read_file(self.path / layout.SEALED_OBJECT))
        for task in self.tasks():
            holder = self._claims.holder(task)
            what = f"being written by {holder}" if holder else "not written yet"
            raise LockedError(
                self.path / layout.claim_object(task.split, task.shard),
                f"shard {task.shard} of {task.split} is {what}",
                "run the same command again, after that process if there is one",
            )
        check_first_files(self.path, self.plan)
        check_commits(self.path, self.plan)
        return seal_store(self.path, self.plan, durable=self.durable)

    def _place(self, task: ShardTask) -> Place:
        return Place(
            self.path,
            self.plan,
            self._claims,
            self._threads,
            self.durable,
            given=self._given(task),
            numerics=None if self._numerics == self.plan.numerics else self._numerics,
        )

    def _given(self, task: ShardTask) -> dict[str, Any]:
        """What an earlier commit record says of the taps whose files are all there."""
        inherited = self.path / layout.inherited_object(task.split, task.shard)
        if not inherited.exists():
            return {}
        objects = files.read_json(inherited).get("objects")
        given: dict[str, Any] = {}
        for tap in self.plan.spec.taps:
            names = record_objects(self.plan, task.split, tap, task.shard)
            names.append(layout.check_object(task.split, tap, task.shard))
            if isinstance(objects, dict) and all(self._is_there(n, objects.get(n)) for n in names):
                given |= {name: objects[name] for name in names}
        return given

    def _is_there(self, name: str, facts: Any) -> bool:
        try:
            return bool((self.path / name).stat().st_size == facts["bytes"])
        except (OSError, KeyError, TypeError):
            return False

    def _take(self, task: ShardTask) -> bool:
        """Claim a shard; a claim that comes too late, after the commit, is given back."""
        if self.is_sealed:
            return False
        self._claims.check_store()
        commit = self.path / layout.commit_object(task.split, task.shard)
        if commit.exists():  # by another process, since the missing ones were listed
            return False
        if not self.durable:
            note_unsynced(self.path)
        if not self._claims.take(task):
            return False
        if commit.exists():
            self._claims.release(task)
            return False
        return True

    def _prepare(self) -> None:
        """Make the folders that some copying tools drop, and remove what dead processes left."""
        scratch, is_sealed = self.path / layout.TMP_FOLDER, self.is_sealed
        if not is_sealed:
            for folder in self._folders():
                files.make_folders(folder, durable=self.durable)
            if self.durable:
                # Whoever created the store may have been killed just before this.
                system.current.sync_folder(self.path.parent)
        for leftover in scratch.iterdir() if scratch.is_dir() else ():
            if is_sealed or files.tag_is_dead(leftover.name):
                system.current.unlink(leftover)

    def _folders(self) -> Iterator[Path]:
        yield self.path / layout.TMP_FOLDER
        for split in self.plan.splits:
            for kind in ("commits", "claims"):
                yield self.path / ".losa" / kind / split


def in_turn(tasks: Sequence[ShardTask], number: int, count: int) -> list[ShardTask]:
    """Shards in the order in which one of several processes takes them: its own, then the rest.

    Whose a shard is follows from its number alone, so that nobody need ask, and whoever has done
    his own does not meet the others at their next one.

    Example:
        >>> tasks = [ShardTask("train", shard, 0, 0) for shard in range(6)]
        >>> [task.shard for task in in_turn(tasks, 1, 3)]
        [1, 4, 2, 5, 0, 3]
    """
    return sorted(tasks, key=lambda task: (task.shard - number) % count)


def unsynced_boot(path: Path) -> str | None:
    """During which boot of a machine somebody began to write without syncing; nobody: ``None``."""
    try:
        return (path / layout.UNSYNCED_OBJECT).read_text(errors="replace")
    except OSError:
        return None


def note_unsynced(path: Path) -> None:
    """Leave a note, itself synced, that files of this store may not survive a power cut.

    Where machines or boots have come together, it says so, and everybody looks at contents.
    """
    note, scratch = path / layout.UNSYNCED_OBJECT, path / layout.TMP_FOLDER
    boot = files.boot_id()
    found = unsynced_boot(path)
    if found is None and files.create_once(note, boot.encode(), scratch=scratch, durable=True):
        return
    if unsynced_boot(path) not in (boot, SEVERAL_BOOTS):
        files.write_atomic(note, SEVERAL_BOOTS.encode(), scratch=scratch)
