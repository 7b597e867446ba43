"""Processes of ``losa extract`` that tests start, kill, and compare the outcome of."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
TINY = (
    *("--model", "vit_tiny_patch16_224", "--weights", "random", "--img-size", "32"),
    *("--taps", "2,11", "-b", "4", "--shard-rows", "4", "-j", "0", "--device", "cpu"),
    *("--durability", "none", "--dataset", "folder:data"),
)
LOSA = (sys.executable, "-m", "losa")
STARTED: list[subprocess.Popen[str]] = []
"""All that was started in the test that runs."""


def at_a_claim(number: int, signal: int) -> tuple[str, ...]:
    """A module and its first arguments: ``losa``, which signals itself at its n-th claim."""
    return "tests.extract.at_a_claim", str(number), str(int(signal))


def start(
    folder: Path, *words: str, program: Sequence[str] = LOSA, **environment: object
) -> subprocess.Popen[str]:
    """Start a command in a folder, in an environment with these variables."""
    changes = {name: str(value) for name, value in environment.items()}
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **changes}
    process = subprocess.Popen(
        [*program, *words],
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    STARTED.append(process)
    return process


def end_all() -> None:
    """End whatever a test has left running, or stopped: it would spoil the tests after it."""
    while STARTED:
        process = STARTED.pop()
        process.kill()
        process.communicate()


def wait_until_stopped(process: subprocess.Popen[str]) -> None:
    """Wait until a process has stopped itself."""
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), f"it ended with {os.waitstatus_to_exitcode(status)}"


def finish(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    """Wait for a process to end with a code; returns what it wrote."""
    out, err = process.communicate(timeout=240)
    assert process.returncode == code, (process.returncode, out, err)
    return out, err


def wait_until(ready: Callable[[], bool], *processes: subprocess.Popen[str]) -> None:
    """Wait until something is so, while all of the processes still run."""
    while not ready():
        for process in processes:
            assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def committed(store: Path) -> int:
    """Shards of a store that are committed."""
    return len(list((store / ".losa/commits").glob("*/*.json")))


def claimed(store: Path, pid: int) -> bool:
    """Whether a process holds a shard of a store just now."""
    for claim in (store / ".losa/claims").glob("*/*"):
        try:
            if f'"pid":{pid},' in claim.read_text():
                return True
        except FileNotFoundError:
            continue
    return False
