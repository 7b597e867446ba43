"""F3: after a power cut, what was promised is there, nothing is wrong, and all can be resumed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.crash_states import crash_states
from tests.faults.figures import publish
from tests.faults.power_cut import check
from tests.faults.recordings import SCENARIOS, recorded

QUICK_STATES = 38


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
        for state in crash_states(recording.acts, chances=3):
            check(state, recording, memory)
            counted[scenario] += 1
    assert sum(counted.values()) >= 2000
    publish("f3", {"states": counted, "total": sum(counted.values()), "wrong": 0, "lost": 0})
