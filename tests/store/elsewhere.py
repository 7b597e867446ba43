"""Other hosts, and the time that passes while they are watched."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from losa.store import files, layout
from losa.store.claims import ShardTask
from losa.store.writer import Clock

TASK = ShardTask("train", 0, 0, 8)


class Elsewhere:
    """A clock whose every second something happens on another host."""

    def __init__(self, each_second: Callable[[int], None] = lambda _: None) -> None:
        self.seconds = 0
        self.each_second = each_second

    def now(self) -> float:
        return float(self.seconds)

    def sleep(self, seconds: float) -> None:
        self.seconds += int(seconds)
        self.each_second(self.seconds)

    @property
    def clock(self) -> Clock:
        return Clock(self.now, self.sleep)


def claim_path(root: Path, task: ShardTask = TASK) -> Path:
    """Where a shard's claim lies."""
    return root / layout.claim_object(task.split, task.shard)


def foreign_claim(root: Path, **changes: Any) -> dict[str, Any]:
    """A claim of process 7 on another host, but for ``changes``; returns what it holds."""
    owner = {"host": "elsewhere", "boot": "x", "space": "y", "pid": 7, "start": 1, "tag": "7-1-y-0"}
    owner |= {"beat": "3"} | changes
    claim_path(root).write_text(json.dumps(owner))
    return owner


def here(**changes: Any) -> dict[str, Any]:
    """What a claim of this very process space holds, but for ``changes``."""
    owner = {"host": os.uname().nodename, "boot": files.boot_id(), "space": files.process_space()}
    return owner | {"pid": os.getpid(), "start": files.start_time(os.getpid())} | changes
