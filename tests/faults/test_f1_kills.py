"""F1: killed at any system call, the same command resumes and gives the same bytes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from losa.features import StoreDtype
from tests.faults.figures import publish
from tests.faults.processes import Countdown, HookedSystem, Log, die, ended, forked
from tests.faults.strace_kill import has_strace, kill_points, strace_kill
from tests.faults.tiny import SHARDS, through, tiny_plan, write_store
from tests.store.build import small_store, tree

STRACE = pytest.mark.skipif(not has_strace(), reason="strace is absent or may not trace")
QUICK_STRACE = 10


@pytest.mark.parametrize(
    ("dtype", "step"),
    [
        pytest.param("float16", 5, id="every fifth call"),
        pytest.param("float16", 1, id="every call", marks=pytest.mark.faults),
        pytest.param("int8", 1, id="every call, int8", marks=pytest.mark.faults),
    ],
)
@pytest.mark.timeout(900)
def test_killed_at_any_call_of_the_store_then_resumed(
    dtype: StoreDtype, step: int, memory: Path
) -> None:
    plan = tiny_plan(dtype)
    want = tree(small_store(memory / "want.zarr", plan))
    calls, again = count_calls(memory, dtype), 0
    for number in range(1, calls + 1, step):
        path, log = memory / f"{number}.zarr", Log(memory / "log")
        child = forked(lambda: mortal(path, number, log, dtype))  # noqa: B023 -- used in this turn
        assert ended(child) == -9, number
        again = max(again, resumed(path, log, dtype, want))
    assert again <= 1
    if step == 1:
        figures = {"points": calls, "identical": calls, "shards_computed_again": again}
        publish(f"f1-{dtype}", figures)


@STRACE
@pytest.mark.parametrize(
    "count", [QUICK_STRACE, pytest.param(130, marks=pytest.mark.faults, id="whole")]
)
@pytest.mark.timeout(1800)
def test_killed_by_strace_at_system_calls_then_resumed(count: int, memory: Path) -> None:
    want = tree(small_store(memory / "want.zarr", tiny_plan()))
    again, killed = 0, dict[str, int]()
    for call, number in kill_points(memory / "counted.zarr", count):
        path, log = memory / f"{call}-{number}.zarr", Log(memory / "log")
        if strace_kill(path, call, number, memory / "log"):
            killed[call] = killed.get(call, 0) + 1
        again = max(again, resumed(path, log, "float16", want))
    assert again <= 1
    assert sum(killed.values()) >= 0.9 * count
    if count > QUICK_STRACE:
        total = sum(killed.values())
        assert total >= 100
        figures = {"points": total, "identical": total, "shards_computed_again": again}
        publish("f1-strace", {**figures, "calls": killed})


def mortal(path: Path, number: int, log: Log, dtype: StoreDtype) -> None:
    """Write a store, and die at the n-th call."""
    with through(HookedSystem(Countdown(number, die))):
        write_store(path, tiny_plan(dtype), begun=log)


def count_calls(memory: Path, dtype: StoreDtype) -> int:
    """Calls that it takes to write the store when nobody dies."""
    count = Countdown(0, die)
    with through(HookedSystem(count)):
        write_store(memory / "counted.zarr", tiny_plan(dtype))
    shutil.rmtree(memory / "counted.zarr")
    return -count.left


def resumed(path: Path, log: Log, dtype: StoreDtype, want: dict[str, bytes]) -> int:
    """Run the same command again; returns how many shards were computed more than once."""
    write_store(path, tiny_plan(dtype), begun=log)
    assert tree(path) == want
    assert [entry.name for entry in path.parent.glob(f".{path.name}.*")] == []
    shutil.rmtree(path)
    return len(log.lines()) - SHARDS
