"""F3: every sync is there for a reason; without it, some power cut does harm."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from losa.errors import LosaError
from tests.faults.crash_states import crash_states
from tests.faults.crash_system import roles
from tests.faults.figures import publish
from tests.faults.power_cut import check
from tests.faults.recordings import SCENARIOS, Recording, recorded

NEAR = 3
QUICK_SEARCH = 40
WHOLE_SEARCH = 120

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
    needed = {kind for kind in kinds - set(REDUNDANT) if is_needed(kind, memory, WHOLE_SEARCH)}
    assert kinds - needed == set(REDUNDANT)
    places = sorted({kind.partition(" ")[0] for kind in kinds})
    publish("f3-syncs", {"places": places, "needed": sorted(needed), "redundant": REDUNDANT})


def sites(scenario: str) -> set[str]:
    """Where losa syncs in a scenario, and what."""
    return set(roles(recorded(scenario).acts).values())


def is_needed(site: str, memory: Path, search: int) -> bool:
    """Whether some power cut does harm when one place in the code, or one kind of it, is idle.

    Most harm is there in the end, or at once; where it is not, it is searched for.
    """
    cases = []
    for name in SCENARIOS:
        recording = recorded(name)
        idle = syncs_of(site, recording)
        if idle:
            cases.append(Case(without(recording, idle), idle[0]))
    return (
        any(case.is_harmed(memory, len(case.recording.acts) - NEAR) for case in cases)
        or any(case.is_harmed(memory, case.first, case.first + NEAR) for case in cases)
        or any(case.is_harmed(memory, case.first, search=search) for case in cases)
    )


@dataclass(frozen=True, slots=True)
class Case:
    """A recording in which some syncs are idle, and where the first of them was."""

    recording: Recording
    first: int

    def is_harmed(
        self, memory: Path, start: int, stop: int | None = None, search: int | None = None
    ) -> bool:
        """Whether a power cut between two acts does harm; at most ``search`` are tried."""
        states = list(crash_states(self.recording.acts[:stop], chances=2, first=start))
        for state in random.Random(0).sample(states, min(search or len(states), len(states))):
            try:
                check(state, self.recording, memory)
            except (AssertionError, LosaError):
                shutil.rmtree(memory / "state")
                return True
        return False


def without(recording: Recording, idle: list[int]) -> Recording:
    """The same acts but for some."""
    kept = [act for number, act in enumerate(recording.acts) if number not in set(idle)]
    return replace(recording, acts=kept)


def syncs_of(site: str, recording: Recording) -> list[int]:
    """Where in a record a place syncs."""
    found = roles(recording.acts)
    return [number for number, at in found.items() if f"{at} ".startswith(f"{site} ")]
