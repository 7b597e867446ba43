"""Records of how a tiny store is written: without trouble, in two runs, with and without syncs."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from losa.store import Plan, layout, system
from tests.faults.crash_system import Act, CrashSystem, site
from tests.faults.tiny import SPLIT, one_shard_plan, process, through, tiny_plan, write_store
from tests.store.build import tree

NAME: Final = "s.zarr"


class KilledError(BaseException):
    """The process ends here: nothing that follows reaches the disk."""


class DeadSystem(system.System):
    """What a killed process can still do."""

    def __getattribute__(self, name: str) -> Any:
        raise KilledError(name)


class MortalSystem(CrashSystem):
    """Kills the process that is about to do one act, named by its kind and path, once."""

    def __init__(self, base: Path, kind: str, path: str) -> None:
        super().__init__(base)
        self._last: tuple[str, str] | None = (kind, path)

    def link(self, source: Path, target: Path) -> None:
        self._live("link", target)
        super().link(source, target)

    def sync_folder(self, path: Path) -> None:
        self._live("sync", path)
        super().sync_folder(path)

    def _live(self, kind: str, path: Path) -> None:
        if self._last == (kind, self.name(path)):
            self._last = None
            system.current = DeadSystem()
            raise KilledError


class FailingSyncSystem(CrashSystem):
    """The first sync of a small file's temporary fails, as where a disk has lost a write."""

    fails = False

    def fsync(self, handle: int) -> None:
        self.fails = not self.fails and site() == "files._try_sync"
        if self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().fsync(handle)


@dataclass(frozen=True, slots=True)
class Recording:
    """The acts that wrote a store, and the files that it has in the end."""

    plan: Plan
    acts: Sequence[Act]
    tree: dict[str, bytes]


def dying(kind: str, path: str) -> Callable[[Path], CrashSystem]:
    """A system that kills its process at one act on the store."""
    return lambda base: MortalSystem(base, kind, f"{NAME}/{path}" if path else "")


Write = Callable[[CrashSystem, Path, Plan], None]


def in_one_run(calls: CrashSystem, path: Path, plan: Plan) -> None:
    """Nothing happens."""
    with process():
        write_store(path, plan, promised=calls.promise)


def unsynced(calls: CrashSystem, path: Path, plan: Plan) -> None:
    """Nothing is synced but the empty store, the note that says so, and the seal."""
    with process():
        write_store(path, plan, durable=False, promised=calls.promise)


def in_two_runs(calls: CrashSystem, path: Path, plan: Plan) -> None:
    """The first run is killed, and another process goes on."""
    _interrupted(calls, path, plan, durable=True)


def after_an_unsynced_run(calls: CrashSystem, path: Path, plan: Plan) -> None:
    """As in two runs, but the first one synced nothing."""
    _interrupted(calls, path, plan, durable=False)


def _interrupted(calls: CrashSystem, path: Path, plan: Plan, *, durable: bool) -> None:
    with process(), suppress(KilledError):
        write_store(path, plan, durable=durable, promised=calls.promise)
    assert isinstance(system.current, DeadSystem)
    system.current = calls
    with process(start=2):
        write_store(path, plan, promised=calls.promise)


LAST_COMMIT: Final = layout.commit_object(SPLIT, 1)
COMMITS: Final = LAST_COMMIT.rpartition("/")[0]
SCENARIOS: Final[dict[str, tuple[Callable[[Path], CrashSystem], Write, Plan]]] = {
    "float16": (CrashSystem, in_one_run, tiny_plan()),
    "int8": (CrashSystem, in_one_run, tiny_plan("int8")),
    "killed before a commit": (dying("link", LAST_COMMIT), in_two_runs, tiny_plan()),
    "killed before a commit is synced": (dying("sync", COMMITS), in_two_runs, one_shard_plan()),
    "killed before the store is synced": (dying("sync", ""), in_two_runs, tiny_plan()),
    "after an unsynced run": (dying("link", LAST_COMMIT), after_an_unsynced_run, tiny_plan()),
    "unsynced": (CrashSystem, unsynced, tiny_plan()),
    "failing syncs": (FailingSyncSystem, in_one_run, tiny_plan()),
}


@cache
def recorded(scenario: str) -> Recording:
    """Write a store for real and keep the record."""
    kind, write, plan = SCENARIOS[scenario]
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        calls = kind(base)
        with through(calls), calls.promises():
            write(calls, base / NAME, plan)
        return Recording(plan, tuple(calls.acts), tree(base / NAME))
