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
from tests.faults.tiny import SPLIT, process, through, tiny_plan, write_store
from tests.store.build import tree

NAME: Final = "s.zarr"


class KilledError(BaseException):
    """The process ends here: nothing that follows reaches the disk."""


class DeadSystem(system.System):
    """What a killed process can still do."""

    def __getattribute__(self, name: str) -> Any:
        raise KilledError(name)


class MortalSystem(CrashSystem):
    """Kills the process that would commit the last shard, once."""

    is_spent = False

    def link(self, source: Path, target: Path) -> None:
        if target.as_posix().endswith(layout.commit_object(SPLIT, 1)) and not self.is_spent:
            self.is_spent = True
            system.current = DeadSystem()
            raise KilledError
        super().link(source, target)


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


def in_one_run(calls: CrashSystem, path: Path, plan: Plan) -> None:
    """Nothing happens."""
    with process():
        write_store(path, plan)


def in_two_runs(calls: CrashSystem, path: Path, plan: Plan, *, durable: bool = True) -> None:
    """The first run is killed when the last shard lies at its names, just before its commit."""
    with process(), suppress(KilledError):
        write_store(path, plan, durable=durable)
    system.current = calls
    with process(start=2):
        write_store(path, plan)


def after_an_unsynced_run(calls: CrashSystem, path: Path, plan: Plan) -> None:
    """As in two runs, but the first one synced nothing."""
    in_two_runs(calls, path, plan, durable=False)


def unsynced(calls: CrashSystem, path: Path, plan: Plan) -> None:
    """Nothing is synced but the empty store, the note that says so, and the seal."""
    with process():
        write_store(path, plan, durable=False)


SCENARIOS: Final[dict[str, tuple[type[CrashSystem], Callable[..., None], Plan]]] = {
    "float16": (CrashSystem, in_one_run, tiny_plan()),
    "int8": (CrashSystem, in_one_run, tiny_plan("int8")),
    "two runs": (MortalSystem, in_two_runs, tiny_plan()),
    "after an unsynced run": (MortalSystem, after_an_unsynced_run, tiny_plan()),
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
