"""Settings, their order, and fronts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from losa.report.ranking import (
    COSTS,
    criterion_of,
    front,
    mean,
    settings_of,
    swept_fields,
    winner_of,
)
from losa.report.trials import Trial, read_folder
from tests.report.made import trial


def settings(*trials: Trial) -> list[str]:
    """Names of the first trials of each setting, in their order."""
    criterion = criterion_of(trials)
    return [one.trials[0].name for one in settings_of(trials, criterion)]


def of(rank: int, seed: int = 0) -> dict[str, int]:
    return {"rank": rank, "seed": seed}


def test_means_and_errors_are_numpys(sweep: Path) -> None:
    trials = read_folder(sweep).trials
    for setting in settings_of(trials, criterion_of(trials)):
        scores = [each.metrics["test"]["top1"] for each in setting.trials]
        found = setting.score("test", "top1")
        assert found is not None
        assert found.value == pytest.approx(np.mean(scores))
        assert found.error == pytest.approx(np.std(scores, ddof=1) / np.sqrt(len(scores)))
        seconds = [each.seconds for each in setting.trials if each.seconds is not None]
        assert setting.cost(COSTS[1]) == pytest.approx(np.mean(seconds))


def test_trials_that_differ_in_seed_and_place_alone_are_one_setting(sweep: Path) -> None:
    trials = read_folder(sweep).trials
    assert swept_fields(trials) == ("rank", "lr")
    found = settings_of(trials, criterion_of(trials))
    assert len(found) == 6
    assert {len(one.trials) for one in found} == {2}
    assert [one.number for one in found] == [1, 2, 3, 4, 5, 6]


def test_val_decides_the_order_and_test_does_not() -> None:
    worse = trial("worse", 0.4, test=0.9, config=of(1))
    better = trial("better", 0.6, test=0.1, config=of(2))
    assert settings(worse, better) == ["better", "worse"]


def test_among_equals_the_lower_loss_is_better() -> None:
    first = trial("a", 0.5, loss=2.0, config=of(1))
    second = trial("b", 0.5, loss=1.0, config=of(2))
    assert settings(first, second) == ["b", "a"]


def test_a_setting_that_lost_a_trial_stands_behind_whole_ones() -> None:
    lucky = trial("lucky", 0.9, config=of(1, 0))
    diverged = trial("lost", None, config=of(1, 1), reason="diverged")
    steady = trial("steady", 0.5, config=of(2, 0))
    assert settings(lucky, diverged, steady) == ["steady", "lucky"]


def test_what_halving_left_behind_keeps_its_val_and_stands_behind() -> None:
    ahead = trial("stopped", 0.9, test=None, config=of(1), reason="left behind", is_left=True)
    whole = trial("whole", 0.5, config=of(2))
    criterion = criterion_of((ahead, whole))
    found = settings_of((ahead, whole), criterion)
    assert [one.trials[0].name for one in found] == ["whole", "stopped"]
    score = found[1].score("val", "top1")
    assert score is not None
    assert score.value == 0.9
    assert winner_of(found[1:], criterion) is None


def test_the_winner_is_the_best_seed_of_the_best_setting() -> None:
    trials = [
        trial("low", 0.6, config=of(1, 0)),
        trial("high", 0.8, config=of(1, 1)),
        trial("peak", 0.9, config=of(2, 0)),
        trial("pit", 0.1, config=of(2, 1)),
    ]
    criterion = criterion_of(trials)
    found = winner_of(settings_of(trials, criterion), criterion)
    assert found is not None
    assert found.name == "high"


def test_without_val_nothing_is_chosen() -> None:
    trials = [trial("a", None, test=0.1, config=of(1)), trial("b", None, test=0.9, config=of(2))]
    criterion = criterion_of(trials)
    assert settings(*trials) == ["a", "b"]
    assert winner_of(settings_of(trials, criterion), criterion) is None


def test_numbers_are_chosen_by_the_lower_loss() -> None:
    made = [
        Trial(name, of(rank), {"val": {"loss": loss, "r2": 0.5}})
        for name, rank, loss in (("a", 1, 0.5), ("b", 2, 0.25))
    ]
    assert criterion_of(made).key == "loss"
    assert settings(*made) == ["b", "a"]


def test_a_field_that_some_trials_lack_counts_as_swept() -> None:
    assert swept_fields([trial(config={"rank": 1}), trial(config={"rank": 1, "lr": 2.0})]) == (
        "lr",
    )


@given(
    st.lists(
        st.tuples(st.integers(0, 6).map(float), st.integers(0, 6).map(float)),
        min_size=1,
        max_size=12,
    )
)
def test_a_point_is_on_the_front_unless_another_beats_it(points: list[tuple[float, float]]) -> None:
    found = [points[place] for place in front(points)]
    beaten = {
        one
        for one in points
        for other in points
        if other != one and other[0] <= one[0] and other[1] >= one[1]
    }
    assert set(found) == set(points) - beaten
    assert len(found) == len(set(found))


def test_one_value_has_no_error() -> None:
    assert mean([]) is None
    assert mean([0.5]) == mean((0.5,))
    found = mean([0.5])
    assert found is not None
    assert found.error is None
