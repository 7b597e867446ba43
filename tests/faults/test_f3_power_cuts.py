"""F3: after a power cut, what was promised is there, nothing is wrong, and all can be resumed."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from losa.errors import LosaError
from losa.store import Plan, layout
from losa.store.damage import content_damage, size_damage
from tests.faults.crash_states import State, crash_states, restore
from tests.faults.crash_system import Act, roles
from tests.faults.figures import publish
from tests.faults.recordings import NAME, SCENARIOS, Recording, recorded
from tests.faults.tiny import SPLIT, process, reads_as_written, write_store
from tests.store.build import tree

QUICK_STATES = 50
whole_run = [pytest.mark.faults, pytest.mark.timeout(3600)]


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory where there is one: states are many, and disks slow."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_some_power_cuts_lose_nothing_that_was_promised(scenario: str, memory: Path) -> None:
    recording = recorded(scenario)
    states = list(crash_states(recording.acts, chances=2))
    for state in random.Random(0).sample(states, QUICK_STATES):
        check(state, recording, memory)


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_no_power_cut_loses_what_was_promised(memory: Path) -> None:
    counted = {}
    for scenario in SCENARIOS:
        recording = recorded(scenario)
        counted[scenario] = 0
        for state in crash_states(recording.acts, chances=8):
            check(state, recording, memory)
            counted[scenario] += 1
    assert sum(counted.values()) >= 2000
    publish("f3", {"states": counted, "total": sum(counted.values()), "wrong": 0, "lost": 0})


def check(state: State, recording: Recording, memory: Path) -> None:
    """Read what is left, look for what was promised, and run the same command again."""
    base = memory / "state"
    base.mkdir()
    restore(state.image, base)
    path, plan = base / NAME, recording.plan
    with process(boot="second", start=9):
        is_whole = reads_as_written(path, plan)
        for promise in state.promised:
            if "/commits/" in promise:
                assert damage(path, plan, int(Path(promise).stem)) is None, state.acts
            elif promise.endswith(layout.SEALED_OBJECT):
                assert is_whole, state.acts
        write_store(path, plan)
        have = tree(path)
        assert have.keys() == recording.tree.keys(), state.acts
        assert [name for name in have if have[name] != recording.tree[name]] == [], state.acts
        assert reads_as_written(path, plan), state.acts
    shutil.rmtree(base)


def damage(path: Path, plan: Plan, shard: int) -> str | None:
    """What is wrong with a shard that was said to be committed."""
    commit = path / layout.commit_object(SPLIT, shard)
    if not commit.exists():
        return "is not committed"
    return size_damage(path, commit) or content_damage(path, plan, SPLIT, shard)
