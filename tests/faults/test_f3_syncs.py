"""F3: every sync is there for a reason; without it, some power cut does harm."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from losa.errors import LosaError
from tests.faults.crash_states import crash_states
from tests.faults.crash_system import roles
from tests.faults.figures import publish
from tests.faults.power_cut import check
from tests.faults.recordings import SCENARIOS, Recording, recorded

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
        is_harmed(recorded(name), idle, memory, depth)
        for depth in (10, search)  # most harm is easily found, in one of the scenarios
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
