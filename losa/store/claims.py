"""Claims: which process computes a shard, and whether that process still lives.

A claim is a small file that only one process can create. It carries a beat, which its owner counts
up while it lives: another host cannot look up a process here, but it can see a beat that stands
still. Source: docs/store-format.md, section "Claims".
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Final

from losa.errors import LockedError
from losa.features import is_whole
from losa.store import files, layout, lock, system

BEAT_SECONDS: Final = 20.0
STALE_SECONDS: Final = 600.0
"""Seconds, on the observer's own clock, after which a beat that stands still is no life."""

_BEAT_DIGITS: Final = 12


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


class Claims:
    """The claims of one process on one store, and its view of everybody else's."""

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._scratch = root / layout.TMP_FOLDER
        self._folder = self._here()
        self._clock = clock
        self._mine: dict[ShardTask, str] = {}
        self._lock = Lock()
        self._seen: dict[Path, tuple[bytes, float]] = {}
        self._ended = Event()
        self._thread: Thread | None = None

    def take(self, task: ShardTask) -> bool:
        """Claim a shard for this process, from a dead owner if need be; say whether it worked.

        Raises:
            LockedError: another store lies here by now.
            ResourceError: the store cannot be written.
        """
        self.check_store()
        path = self._path(task)
        with files.named(path):
            return self._create(task, path) or self._take_over(task, path)

    def _take_over(self, task: ShardTask, path: Path) -> bool:
        if not self._is_dead(path):
            return False
        with lock.turn(path.parent) as is_ours:
            # Whoever had the turn before may have made the claim his own meanwhile.
            return is_ours and self._is_dead(path) and self._replace(task, path)

    def _replace(self, task: ShardTask, path: Path) -> bool:
        """Put this process's claim in the place of a dead one."""
        # Where there are no locks, others are here too. Renaming is what only one of them can do;
        # look again at what was taken.
        taken = self._scratch / files.owner_tag()
        try:
            system.current.rename(path, taken)
        except FileNotFoundError:
            return False
        self._seen[taken] = self._seen.get(path, (b"", 0.0))
        if not self._is_dead(taken):
            files.publish(taken, path, durable=False)
            return False
        self._fence(_read_claim(taken))
        system.current.unlink(taken)
        return self._create(task, path)

    def release(self, task: ShardTask) -> None:
        """Give a shard back; nothing happens if it is not, or not any more, this process's."""
        # One that stays, on a disk that fails, is dead with this process.
        with suppress(OSError):
            if self.holds(task):
                system.current.unlink(self._path(task))
        with self._lock:
            self._mine.pop(task, None)

    def check_store(self) -> None:
        """Make sure that the store is still the one that this process began to write.

        Raises:
            LockedError: it was put aside, and another may lie here by now.
        """
        if self._here() != self._folder:
            what = "is not the store any more that this process began to write"
            raise LockedError(self._root, what, "run the same command again")

    def holds(self, task: ShardTask) -> bool:
        """Whether the shard is still this process's: a paused one may have been taken for dead."""
        with self._lock:
            tag = self._mine.get(task)
        if self._here() != self._folder:
            return False  # the store was put aside, and another may lie here
        return tag is not None and _read_claim(self._path(task)).get("tag") == tag

    def holder(self, task: ShardTask) -> str | None:
        """Who holds a shard, for people."""
        owner = _read_claim(self._path(task))
        return f"process {owner.get('pid')} on {owner.get('host')}" if owner else None

    def listed(self) -> list[dict[str, Any]]:
        """Every claim: its shard, who holds it, how long ago its beat rose, and whether it is dead.

        The age of a beat goes by this host's clock and the file's, which may be another host's.
        """
        found = []
        for path in sorted(self._root.glob(".losa/claims/*/*")):
            # A stranger's store may hold anything here, such as a pipe that nobody ends.
            if path.is_file() and not path.is_symlink() and is_whole(path.name):
                with suppress(OSError):  # given back just now
                    age = max(0.0, time.time() - path.stat().st_mtime)
                    found.append(self._facts(path, round(age, 1)))
        return found

    def _facts(self, path: Path, age: float) -> dict[str, Any]:
        owner = _parse_claim(path.read_bytes())
        return {
            "split": path.parent.name,
            "shard": int(path.name),
            "host": owner.get("host"),
            "pid": owner.get("pid"),
            "beat_age_seconds": age,
            "dead": self._is_dead(path),
        }

    def is_free(self, task: ShardTask) -> bool:
        """Whether nobody holds a shard, or certainly nobody any more."""
        return self._is_dead(self._path(task))

    def beat(self) -> None:
        """Count up the beat of every claim held."""
        with self._lock:
            held = list(self._mine.items())
        for task, tag in held:
            # In the open file: were the claim another's by now, its new file stays as it is.
            # Whatever has become of one claim, the others still need their beat.
            with (
                suppress(OSError, ValueError),
                self._path(task).open("r+b", buffering=0) as file,
            ):
                owner = _parse_claim(file.read())
                if owner.get("tag") == tag:
                    count = int(str(owner.get("beat"))) + 1
                    file.seek(0)
                    file.write(_claim_bytes({**owner, "beat": f"{count:0{_BEAT_DIGITS}d}"}))

    def close(self) -> None:
        """Give back every shard."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        for task in list(self._mine):
            self.release(task)

    def _create(self, task: ShardTask, path: Path) -> bool:
        owner = _owner()
        if not files.create_once(path, _claim_bytes(owner), scratch=self._scratch, durable=False):
            return False
        with self._lock:
            self._mine[task] = owner["tag"]
        if self._thread is None:
            self._thread = Thread(target=self._keep_beating, name="losa-beat", daemon=True)
            self._thread.start()
        return True

    def _keep_beating(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            self.beat()

    def _fence(self, owner: Mapping[str, Any]) -> None:
        """Remove the temporaries of an owner taken for dead, so that it can publish nothing more.

        It may only have been asleep: when it wakes, what it would give a name is gone.
        """
        prefix = f"{owner.get('pid')}-{owner.get('start')}-{owner.get('space')}-"
        for leftover in self._scratch.iterdir():
            if leftover.name.startswith(prefix):
                system.current.unlink(leftover)

    def _is_dead(self, path: Path) -> bool:
        """Whether a claim's owner is gone: by looking it up, or by a beat that stands still."""
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            data = b""
        except OSError:
            return False  # what cannot be read may be anybody's
        owner = _parse_claim(data)
        if not owner:
            return True
        if owner.get("host") == socket.gethostname():
            if owner.get("boot") != files.boot_id():
                return True
            if owner.get("space") == files.process_space():
                return _started(owner) != owner.get("start")
        now = self._clock()
        seen, since = self._seen.get(path, (data, now))
        if data != seen:
            since = now
        self._seen[path] = (data, since)
        return now - since >= STALE_SECONDS

    def _here(self) -> tuple[int, int] | None:
        """What the store's folder is, whatever its name."""
        try:
            found = (self._root / ".losa").stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _path(self, task: ShardTask) -> Path:
        return self._root / layout.claim_object(task.split, task.shard)


def _owner() -> dict[str, Any]:
    pid = os.getpid()
    return {
        "beat": "0" * _BEAT_DIGITS,
        "host": socket.gethostname(),
        "boot": files.boot_id(),
        "space": files.process_space(),
        "pid": pid,
        "start": files.start_time(pid),
        "tag": files.owner_tag(),
    }


def _started(owner: Mapping[str, Any]) -> int:
    pid = owner.get("pid")
    return files.start_time(pid) if isinstance(pid, int) else 0


def _claim_bytes(owner: Mapping[str, Any]) -> bytes:
    return files.canonical_json(dict(owner))


def _read_claim(path: Path) -> dict[str, Any]:
    """The owner a claim names; nobody when it is gone or was cut short."""
    try:
        return _parse_claim(path.read_bytes())
    except OSError:
        return {}


def _parse_claim(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
