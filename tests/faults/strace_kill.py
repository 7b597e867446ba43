"""Kills a process at its n-th system call of a kind, from outside."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
CALLS: Final = ("openat", "write", "fsync", "link", "linkat", "unlink", "rename", "mkdir")
SCRIPT: Final = """
import sys
from pathlib import Path
from tests.faults.processes import Log
from tests.faults.tiny import tiny_plan, write_store
write_store(Path(sys.argv[1]), tiny_plan(), begun=Log(Path(sys.argv[2])))
"""


@cache
def has_strace() -> bool:
    """Whether strace is there and may trace."""
    if shutil.which("strace") is None:
        return False
    done = subprocess.run(
        ["strace", "-f", "-o", "/dev/null", "true"], capture_output=True, check=False
    )
    return done.returncode == 0


def kill_points(path: Path, count: int) -> list[tuple[str, int]]:
    """Calls on a store, each by its kind and its number among the calls of its thread.

    They are taken in turn from all kinds, and evenly from each.
    """
    log = path.with_name("strace.log")
    _strace(["-y", "-o", str(log), "-e", "trace=" + _traced(CALLS)], path, path.with_name("begun"))
    shutil.rmtree(path)
    found = _on_the_store(log.read_text(errors="replace"), path.name)
    kinds = [found[call] for call in CALLS if call in found]
    share = -(-count // len(kinds))
    while sum(min(len(points), share) for points in kinds) < count:
        share += 1
    points = [_evenly(points, share) for points in kinds]
    turns = [kind[i] for i in range(share) for kind in points if i < len(kind)]
    return turns[:count]


def strace_kill(path: Path, call: str, number: int, log: Path) -> bool:
    """Write a store and kill the process at a call; says whether it was killed."""
    inject = f"inject={call}:signal=KILL:when={number}"
    code = _strace(["-o", "/dev/null", "-e", f"trace={call}", "-e", inject], path, log)
    return code in (-signal.SIGKILL, 128 + signal.SIGKILL)


def _strace(options: list[str], path: Path, log: Path) -> int:
    command = ["strace", "-f", *options]  # --seccomp-bpf does not inject in strace 6.1
    script = [sys.executable, "-c", SCRIPT, str(path), str(log)]
    return subprocess.run(
        [*command, *script], cwd=ROOT, capture_output=True, check=False
    ).returncode


def _traced(calls: tuple[str, ...]) -> str:
    return ",".join(f"?{call}" for call in calls)  # not every processor has all of them


def _on_the_store(log: str, name: str) -> dict[str, list[tuple[str, int]]]:
    """Kind of call -> calls on the store in a log of strace, by their number in their thread."""
    counts, found = dict[tuple[str, str], int](), dict[str, dict[tuple[str, int], None]]()
    for line in log.splitlines():
        match = re.match(r"(\d+) +(\w+)\(", line)
        if match is None:
            continue
        thread, call = match.groups()
        number = counts[thread, call] = counts.get((thread, call), 0) + 1
        if name in line:
            found.setdefault(call, {})[call, number] = None
    return {call: list(points) for call, points in found.items()}


def _evenly(points: list[tuple[str, int]], count: int) -> list[tuple[str, int]]:
    step = max(1.0, len(points) / count)
    return [points[int(i * step)] for i in range(min(count, len(points)))]
