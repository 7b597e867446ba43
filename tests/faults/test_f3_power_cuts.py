"""F3: after a power cut, what was promised is there, nothing is wrong, and all can be resumed."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from losa.errors import LosaError
from losa.store import Plan, layout
from losa.store.damage import content_damage, size_damage
from tests.faults.crash_states import State, crash_states, restore
from tests.faults.crash_system import roles
from tests.faults.figures import publish
from tests.faults.recordings import NAME, SCENARIOS, Recording, recorded
from tests.faults.tiny import SPLIT, process, reads_as_written, write_store
from tests.store.build import tree

QUICK_STATES = 40
QUICK_SEARCH = 60
WHOLE_SEARCH = 600

REDUNDANT = {
    "files.sync_tree .losa/claims": "writers make folders that are missing",
    "files.sync_tree .losa/claims/train": "an empty folder",
    "files.sync_tree .losa/commits/train": "an empty folder",
    "files.sync_tree .losa/tmp": "an empty folder",
    "files.sync_tree zarr.json": "sealing writes it anew",
    "files.sync_tree .losa/unsynced": "sealing removes it",
    "files._try_sync .losa/unsynced": "its name is what counts; an empty one is of another boot",
}
"""Syncs that the store could do without, each one of a loop over others that it needs."""


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


def test_no_place_in_the_code_that_syncs_could_do_without(memory: Path) -> None:
    places = {site.partition(" ")[0] for name in SCENARIOS for site in sites(name)}
    needless = [place for place in sorted(places) if not is_needed(place, memory, QUICK_SEARCH)]
    assert len(places) >= 10
    assert needless == []


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_no_sync_of_any_kind_of_file_could_be_done_without(memory: Path) -> None:
    kinds = {site for name in SCENARIOS for site in sites(name) if "/tmp/" not in site}
    needed = {kind for kind in sorted(kinds) if is_needed(kind, memory, WHOLE_SEARCH)}
    assert kinds - needed == set(REDUNDANT)
    places = sorted({kind.partition(" ")[0] for kind in kinds})
    publish("f3-syncs", {"places": places, "needed": sorted(needed), "redundant": REDUNDANT})


def sites(scenario: str) -> set[str]:
    """Where losa syncs in a scenario, and what."""
    return set(roles(recorded(scenario).acts).values())


def is_needed(site: str, memory: Path, search: int) -> bool:
    """Whether some power cut does harm when one place in the code, or one kind of it, is idle."""
    return any(
        is_harmed(recorded(name), idle, memory, search)
        for name in SCENARIOS
        if (
            idle := [
                n for n, at in roles(recorded(name).acts).items() if f"{at} ".startswith(f"{site} ")
            ]
        )
    )


def is_harmed(recording: Recording, idle: Sequence[int], memory: Path, search: int) -> bool:
    """Whether one of so many power cuts does harm when some syncs are idle."""
    acts = [act for number, act in enumerate(recording.acts) if number not in set(idle)]
    states = [state for state in crash_states(acts, chances=2) if state.acts > idle[0]]
    last, others = states[-10:], random.Random(0).sample(states, len(states))
    for state in [*last, *others][:search]:
        try:
            check(state, recording, memory)
        except (AssertionError, LosaError):
            shutil.rmtree(memory / "state")
            return True
    return False


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
            elif promise == f"{NAME}/{layout.SEALED_OBJECT}":
                assert is_whole, state.acts
                assert tree(path) == recording.tree, state.acts
            elif promise == NAME:
                assert path.exists(), state.acts
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
