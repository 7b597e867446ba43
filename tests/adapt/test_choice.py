"""One order of settings: val alone, whole ones first, and sweeps and reports agree on it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from losa.adapt.choice import Repetition, best_of, order_of, setting_key, standing
from losa.report.ranking import CRITERIA, settings_of, winner_of
from losa.report.trials import Trial
from losa.sweep.choosing import ranked
from tests.sweep.tiny import result


def of(name: str, top1: float | None = 0.5, loss: float = 1.0, **facts: Any) -> Repetition:
    return Repetition(name, {} if top1 is None else {"top1": top1, "loss": loss}, **facts)


def test_what_chooses_is_top1_then_mean_ap_then_the_loss() -> None:
    assert standing({"top1": 0.25, "mean_ap": 0.5, "loss": 2}) == (0.25, -2.0)
    assert standing({"mean_ap": 0.5, "loss": 2}) == (0.5, -2.0)
    assert standing({"mae": 0.5, "loss": 2}) == (-2.0, -2.0)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ([of("b", 0.6)], [of("a", 0.5)]),
        ([of("b", 0.5, 0.9)], [of("a", 0.5, 1.0)]),
        ([of("b", trainable=3)], [of("a", trainable=4)]),
        ([of("a")], [of("b")]),
        ([of("b", 0.1)], [of("a", 0.9), of("c", None, is_whole=False)]),
        ([of("b", 0.1)], [of("a", 0.9, is_whole=False)]),
        (
            [of("b", 0.1, is_whole=False, epochs=3)],
            [of("a", 0.9, is_whole=False, epochs=1)],
        ),
        ([of("b", 0.1, is_whole=False)], [of("a", None)]),
        ([of("b", 0.1), of("d", 0.9)], [of("a", 0.4), of("c", 0.4)]),
    ],
    ids=["val", "loss", "parameters", "name", "lost", "left", "further", "no-val", "mean"],
)
def test_one_setting_stands_before_another(
    better: list[Repetition], worse: list[Repetition]
) -> None:
    assert order_of(better) < order_of(worse)


def test_the_best_of_a_setting_is_whole_and_of_equals_the_first_seed() -> None:
    trials = [of("a", 0.9, is_whole=False), of("b", 0.5, seed=3), of("c", 0.5, seed=1)]
    assert best_of(trials) == trials[2]
    assert best_of(trials[:1]) is None


def test_a_seed_and_a_place_make_no_other_setting_and_a_rank_does() -> None:
    key = setting_key({"rank": 4, "seed": 0, "out": "a", "read_threads": 2})
    assert key == setting_key({"seed": 5, "rank": 4, "out": "b", "read_threads": 9})
    assert key != setting_key({"rank": 5})


STATUSES = ("complete", "complete", "complete", "stopped", "failed")
RUNS = st.lists(
    st.tuples(st.sampled_from(STATUSES), st.integers(0, 3), st.integers(0, 2), st.integers(1, 3)),
    min_size=1,
    max_size=12,
)


@given(RUNS)
def test_a_sweep_and_its_report_have_the_same_order_and_winner(
    runs: list[tuple[str, int, int, int]],
) -> None:
    results, trials = [], []
    for number, (status, right, loss, epochs) in enumerate(runs):
        config = {"rank": 1 + number % 4, "seed": number // 4, "out": f"{number}"}
        val = {"top1": right / 4, "loss": float(loss)}
        metrics: dict[str, Any] = {} if status == "failed" else {"val": val}
        facts: dict[str, Any] = {"config": config, "metrics": metrics, "epochs": epochs}
        reason = None if status == "complete" else status
        found = result(digest=f"{97 * number % 13:02d}", status=status, reason=reason, **facts)
        results.append(found)
        is_left = status == "stopped"
        trials.append(Trial(found.digest, reason=reason, is_left=is_left, trainable=7, **facts))
    swept, shown = ranked(results), settings_of(trials, CRITERIA[0])
    names = [{one.name for one in setting.whole} for setting in shown if setting.whole]
    assert [{one.digest for one in setting.results} for setting in swept] == names
    winner = winner_of(shown, CRITERIA[0])
    assert (winner and winner.name) == (swept[0].best.digest if swept else None)
