"""Writing a store: skeleton by one rename, rows into whole shards, commit record last, then sealed.

Source: docs/store-format.md, section "Commit protocol".
"""

from __future__ import annotations

import glob
import json
import logging
import os
import shutil
import socket
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8

from losa.errors import LockedError, StoreError
from losa.features import Sample
from losa.store import files, layout
from losa.store.plan import Plan
from losa.store.seal import damage_of, seal_store
from losa.store.skeleton import write_skeleton

OK_STATUS = 1
log = logging.getLogger(__name__)


def create_store(
    path: Path,
    plan: Plan,
    samples: Mapping[str, Sequence[Sample]],
    statistics: Mapping[str, np.ndarray],
    *,
    durable: bool = True,
) -> None:
    """Publish an empty store: built aside in full, then given its name by one rename.

    ``statistics`` are the calibration's ``mean``, ``std`` and ``absmax``, each ``[k d]``.

    Raises:
        LockedError: somebody else created a store at ``path`` meanwhile.
        ResourceError: the place cannot be written.
    """
    aside = path.with_name(f".{path.name}.{files.owner_tag()}")
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if files.tag_is_dead(leftover.name.removeprefix(f".{path.name}.")):
            shutil.rmtree(leftover, ignore_errors=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_skeleton(aside, plan, samples, statistics)
        if durable:
            files.sync_tree(aside)
        if path.exists():
            raise LockedError(path, "was created by another process", "run the same command again")
        aside.rename(path)
        if durable:
            files.sync_folder(path.parent)
    except OSError as error:
        if isinstance(error, LockedError):
            raise
        raise files.resource_error(path, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class ShardTask:
    """One shard to compute: rows ``first`` to ``stop`` of a split."""

    split: str
    shard: int
    first: int
    stop: int

    @property
    def rows(self) -> int:
        """Rows of the shard."""
        return self.stop - self.first


class StoreWriter:
    """Writes the missing shards of a store; any number of processes may do so side by side.

    A shard is claimed, written aside, published and committed, or it is as if never begun.

    Raises:
        StoreError: ``path`` holds no store of this format.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self.path = path
        self.durable = durable
        plan_path = path / layout.PLAN_OBJECT
        self.plan = Plan.from_json(files.read_json(plan_path), plan_path)
        self._scratch = path / layout.TMP_FOLDER
        for folder in self._folders():  # some copying tools drop empty ones
            if not folder.exists():
                folder.mkdir(parents=True, exist_ok=True)
        self._mine: set[ShardTask] = set()
        self._threads = ThreadPoolExecutor(min(4, len(self.plan.spec.taps)), "losa-write")
        for leftover in self._scratch.iterdir():
            if files.tag_is_dead(leftover.name):
                leftover.unlink(missing_ok=True)

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self._threads.shutdown()
        for task in list(self._mine):
            self._release(task)

    @property
    def is_sealed(self) -> bool:
        """Whether nothing is left to write."""
        return (self.path / layout.SEALED_OBJECT).exists()

    def withdraw_damaged(self) -> None:
        """Take back the commit of every shard whose files are not there in full.

        A power cut under ``--durability none``, or a copy that stopped half-way, leaves such
        shards; they are computed again. Contents are compared on reading, and by ``losa verify``.
        """
        for split, item in self.plan.splits.items():
            for shard in range(layout.shard_count(item.rows, self.plan.shard_rows)):
                commit = self.path / layout.commit_object(split, shard)
                if commit.exists() and (what := damage_of(self.path, commit)) is not None:
                    log.warning("%s; shard %d of %s is computed again", what, shard, split)
                    commit.unlink()

    def tasks(self) -> list[ShardTask]:
        """Every shard without a commit record, in order of split and row."""
        missing = []
        for split, rows in ((name, item.rows) for name, item in self.plan.splits.items()):
            folder = self.path / ".losa/commits" / split
            committed = {entry.name for entry in folder.iterdir()}
            for shard in range(layout.shard_count(rows, self.plan.shard_rows)):
                if Path(layout.commit_object(split, shard)).name not in committed:
                    span = layout.shard_span(shard, rows, self.plan.shard_rows)
                    missing.append(ShardTask(split, shard, *span))
        return missing

    def claimed(self) -> Iterator[ShardTask]:
        """The missing shards one by one, each claimed for this process just before it is given.

        Shards that a live process holds are passed over.
        """
        for task in self.tasks():
            if self._claim(task):
                self._mine.add(task)
                if (self.path / layout.commit_object(task.split, task.shard)).exists():
                    self._release(task)
                else:
                    yield task

    def shard(self, task: ShardTask) -> ShardWriter:
        """A writer for one claimed shard; leave its ``with`` block to commit it."""
        return ShardWriter(self, task, self._threads)

    def seal(self) -> str:
        """Seal the store once every shard is committed, and return its ``store_id``.

        Raises:
            LockedError: shards are still missing, held by other live processes.
        """
        if self.is_sealed:
            return files.sha256(files.read_file(self.path / layout.SEALED_OBJECT))
        for task in self.tasks():
            holder = self._holder(task)
            what = f"being written by {holder}" if holder else "not written yet"
            raise LockedError(
                self.path / layout.claim_object(task.split, task.shard),
                f"shard {task.shard} of {task.split} is {what}",
                "run the same command again, after that process if there is one",
            )
        return seal_store(self.path, self.plan, durable=self.durable)

    def _claim(self, task: ShardTask) -> bool:
        claim = self.path / layout.claim_object(task.split, task.shard)
        mine = files.canonical_json(_owner())
        if files.create_once(claim, mine, scratch=self._scratch, durable=False):
            return True
        if self.is_sealed or not _is_dead(_read_claim(claim)):
            return False
        # Renaming is what only one of several takers can do; look again at what was taken.
        taken = self._scratch / files.owner_tag()
        try:
            claim.rename(taken)
        except FileNotFoundError:
            return False
        if not _is_dead(_read_claim(taken)):
            files.publish(taken, claim, durable=False)
            return False
        taken.unlink()
        return files.create_once(claim, mine, scratch=self._scratch, durable=False)

    def _release(self, task: ShardTask) -> None:
        self._mine.discard(task)
        (self.path / layout.claim_object(task.split, task.shard)).unlink(missing_ok=True)

    def _holder(self, task: ShardTask) -> str | None:
        owner = _read_claim(self.path / layout.claim_object(task.split, task.shard))
        return f"process {owner.get('pid')} on {owner.get('host')}" if owner else None

    def _folders(self) -> Iterator[Path]:
        yield self._scratch
        for split in self.plan.splits:
            for kind in ("commits", "claims"):
                yield self.path / ".losa" / kind / split


class ShardWriter:
    """Takes the rows of one shard in order and commits them together.

    Payloads stream into temporary files, so memory stays at one batch whatever the shard's size.
    """

    def __init__(self, store: StoreWriter, task: ShardTask, threads: ThreadPoolExecutor) -> None:
        self.task = task
        self._store = store
        self._threads = threads
        spec = store.plan.spec
        self._taps = spec.taps
        self._record_bytes = spec.record_bytes
        self._checks = np.zeros((len(spec.taps), store.plan.shard_rows), dtype="<u4")
        self._status = np.zeros(store.plan.shard_rows, dtype=np.uint8)
        self._skipped: list[dict[str, Any]] = []
        self._written = 0
        self._paths = [store._scratch / files.owner_tag() for _ in spec.taps]  # noqa: SLF001 -- one unit with its store
        self._handles: list[int] = []

    def __enter__(self) -> ShardWriter:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            self._handles = [os.open(path, flags, 0o644) for path in self._paths]
        except OSError as error:
            self._abandon()
            raise files.resource_error(self._store.path, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._commit()
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            raise files.resource_error(self._store.path, error) from error
        finally:
            self._abandon()

    @property
    def written(self) -> int:
        """Rows taken so far."""
        return self._written

    def write(
        self, planes: Sequence[Shaped[np.ndarray, "b l d"]], status: UInt8[np.ndarray, "b"]
    ) -> None:
        """Append the next ``b`` rows: one plane per tap in the store's dtype, and their status.

        Raises:
            ResourceError: the disk is full or fails.
        """
        first, stop = self._written, self._written + len(status)
        assert stop <= self.task.rows
        assert len(planes) == len(self._taps)
        writes = [
            self._threads.submit(self._write_tap, tap, plane) for tap, plane in enumerate(planes)
        ]
        try:
            # All of them end before anything else happens to the files, whatever one of them met.
            wait(writes)
            for write in writes:
                write.result()
        except OSError as error:
            raise files.resource_error(self._store.path, error) from error
        self._status[first:stop] = status
        self._written = stop

    def skip(self, row: int, key: str, code: int, message: str) -> None:
        """Record why a row holds no features; its status must be ``code``."""
        self._skipped.append({"row": row, "key": key, "code": code, "message": message})

    def _write_tap(self, tap: int, plane: Shaped[np.ndarray, "b l d"]) -> None:
        data = np.ascontiguousarray(plane).view(np.uint8).reshape(-1).data
        size = self._record_bytes
        assert len(data) == len(plane) * size
        files.write_all(self._handles[tap], data)
        self._checks[tap, self._written : self._written + len(plane)] = [
            zlib.crc32(data[start : start + size]) for start in range(0, len(data), size)
        ]

    def _commit(self) -> None:
        task, store = self.task, self._store
        assert self._written == task.rows
        objects: dict[str, Any] = {}
        index = layout.shard_index(task.rows, store.plan.shard_rows, self._record_bytes)
        for number, tap in enumerate(self._taps):
            checks = self._checks[number].tobytes()
            name = layout.tokens_object(task.split, tap, task.shard)
            objects[name] = {
                "bytes": layout.shard_file_bytes(
                    task.rows, store.plan.shard_rows, self._record_bytes
                ),
                "checks": files.sha256(checks),
            }
            self._publish_tokens(number, index, name)
            objects[layout.check_object(task.split, tap, task.shard)] = self._publish_small(
                layout.check_object(task.split, tap, task.shard), checks
            )
        name = layout.status_object(task.split, task.shard)
        objects[name] = self._publish_small(name, self._status.tobytes())
        record = {
            "split": task.split,
            "shard": task.shard,
            "rows": [task.first, task.stop],
            "ok": int((self._status[: task.rows] == OK_STATUS).sum()),
            "skipped": self._skipped,
            "objects": objects,
        }
        self._create(layout.commit_object(task.split, task.shard), files.canonical_json(record))
        store._release(task)  # noqa: SLF001 -- one unit with its store

    def _publish_tokens(self, number: int, index: bytes, name: str) -> None:
        handle = self._handles[number]
        files.write_all(handle, memoryview(index))
        if self._store.durable:
            os.fsync(handle)
        final = self._store.path / name
        # A dead, uncommitted attempt may have left its object; ours to clear under our claim.
        final.unlink(missing_ok=True)
        files.publish(self._paths[number], final, durable=self._store.durable)

    def _publish_small(self, name: str, data: bytes) -> dict[str, Any]:
        (self._store.path / name).unlink(missing_ok=True)
        self._create(name, data)
        return {"bytes": len(data), "sha256": files.sha256(data)}

    def _create(self, name: str, data: bytes) -> None:
        store = self._store
        scratch = store._scratch  # noqa: SLF001 -- one unit with its store
        files.create_once(store.path / name, data, scratch=scratch, durable=store.durable)

    def _abandon(self) -> None:
        for handle in self._handles:
            os.close(handle)
        self._handles = []
        for path in self._paths:
            path.unlink(missing_ok=True)
        self._store._release(self.task)  # noqa: SLF001 -- one unit with its store


def _owner() -> dict[str, Any]:
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "boot": files.boot_id(),
        "space": files.process_space(),
        "pid": pid,
        "start": files.start_time(pid),
    }


def _read_claim(path: Path) -> dict[str, Any]:
    """The owner a claim names; nobody when it is gone or was cut short."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_dead(owner: Mapping[str, Any]) -> bool:
    """Whether a claim's owner is certainly gone; another host's process counts as alive."""
    if not owner:
        return True
    if owner.get("host") != socket.gethostname():
        return False
    if owner.get("boot") != files.boot_id():
        return True
    if owner.get("space") != files.process_space():
        return False
    return files.start_time(int(owner.get("pid", 0))) != owner.get("start")
