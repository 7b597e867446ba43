"""F2: writers killed at random, until the store is there: the same bytes, and little done twice."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from losa.store import Plan
from tests.faults.figures import publish
from tests.faults.processes import Log, ended, forked, persist
from tests.store.build import small_plan, small_store, tree

QUICK_KILLS = 3
SHARDS = 12


@pytest.mark.parametrize(
    "kills", [QUICK_KILLS, pytest.param(25, marks=pytest.mark.faults, id="whole")]
)
@pytest.mark.parametrize("writers", [1, 2])
@pytest.mark.timeout(600)
def test_writers_killed_at_random_until_done(kills: int, writers: int, tmp_path: Path) -> None:
    plan = small_plan({"train": 4 * SHARDS}, shard_rows=4)
    want = tree(small_store(tmp_path / "want.zarr", plan))
    dice, killed, stores, computed = random.Random(writers), 0, 0, 0
    seconds = uninterrupted(tmp_path / "timed.zarr", plan, tmp_path / "begun")
    while killed < kills:
        path, log = tmp_path / f"{stores}.zarr", Log(tmp_path / "begun")
        deaths = 0
        while not (path / ".losa/sealed.json").exists():
            delays = [dice.uniform(0.1, 0.9) * seconds for _ in range(writers)]
            deaths += killed_after(path, plan, log, delays)
        persist(path, plan, log)
        assert tree(path) == want
        # Of several writers each may have one shard in work; a killed one has at most one.
        assert len(log.lines()) <= SHARDS + deaths
        killed, stores, computed = killed + deaths, stores + 1, computed + len(log.lines())
    if kills > QUICK_KILLS:
        figures = {"kills": killed, "stores": stores, "identical": stores}
        shards = {"shards": stores * SHARDS, "shards_computed": computed}
        publish(f"f2-{writers}-writers", {**figures, **shards})


def uninterrupted(path: Path, plan: Plan, log: Path) -> float:
    """Seconds that one writer takes."""
    started = time.monotonic()
    assert ended(forked(lambda: persist(path, plan, Log(log)))) == 0
    return time.monotonic() - started


def killed_after(path: Path, plan: Plan, log: Log, delays: list[float]) -> int:
    """Start writers and kill each after its delay; returns how many had not ended by then."""
    children = [forked(lambda: persist(path, plan, log)) for _ in delays]
    passed = 0.0
    for delay, child in sorted(zip(delays, children, strict=True)):
        time.sleep(delay - passed)
        passed = delay
        os.kill(child, signal.SIGKILL)
    codes = [ended(child) for child in children]
    assert set(codes) <= {0, -signal.SIGKILL}
    return codes.count(-signal.SIGKILL)
