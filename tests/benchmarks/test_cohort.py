"""M6's benchmark runs, and its trials are what they are alone."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from benchmarks.cohort import RANKS, RATES, Contest, settings, verdict, write_store


def test_sixteen_trials_of_each_kind_differ_from_each_other() -> None:
    for kind in ("equal", "mixed"):
        found = [tuple(sorted(one.items())) for one in settings(kind)]
        assert len(set(found)) == len(found) == len(RANKS) * len(RATES)
    assert {one["rank"] for one in settings("equal")} == {8}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_trials_together_have_the_weights_they_have_alone(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", 64)
    options = argparse.Namespace(epochs=1)
    contest = Contest(store, tmp_path / "runs", settings("mixed")[3:5], options)
    assert contest.singly() > 0
    assert contest.together() > 0
    assert contest.are_identical()


def test_the_verdict_is_the_share_of_the_single_runs_seconds() -> None:
    times = {"equal: single runs": [10.0, 8.0], "equal: cohort": [3.0, 2.0]}
    found = verdict(times, "equal")
    assert found == {"best": 0.25, "paired": 0.275, "target": 0.35, "hit": True}
