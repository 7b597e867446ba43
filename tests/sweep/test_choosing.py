"""Choice is on val over seeds; test takes no part; the table has a line a trial."""

from __future__ import annotations

import csv
import io
from math import sqrt
from typing import Any

import pytest

from losa.sweep.choosing import ranked, table_bytes
from losa.sweep.results import TrialResult
from tests.sweep.tiny import result


def trial(rank: int, seed: int, val: float, test: float = 0.5, **changes: Any) -> TrialResult:
    config = {"seed": seed, "rank": rank, "lr": 0.1, "out": f"trials/{rank}-{seed}"}
    metrics = {"val": {"top1": val, "loss": 1.0}, "test": {"top1": test, "loss": 1.0}}
    digest = f"{rank}{seed}"
    return result(**{"digest": digest, "config": config, "metrics": metrics, **changes})


def test_the_setting_with_the_best_mean_on_val_is_first_whatever_its_test() -> None:
    lucky = [trial(1, 0, 0.9, test=0.99), trial(1, 1, 0.1, test=0.99)]
    steady = [trial(2, 0, 0.6, test=0.1), trial(2, 1, 0.7, test=0.1)]
    found = ranked([*lucky, *steady])
    assert [setting.results for setting in found] == [tuple(steady), tuple(lucky)]
    assert found[0].best == steady[1]


def test_a_setting_that_fails_for_a_seed_is_behind_all_that_does_not() -> None:
    failed = trial(1, 1, 0.0, status="failed", metrics={}, reason="diverged")
    found = ranked([trial(1, 0, 0.9), failed, trial(2, 0, 0.3)])
    assert [setting.results[0].config["rank"] for setting in found] == [2, 1]


def test_what_was_left_behind_is_not_ranked() -> None:
    assert ranked([trial(1, 0, 0.9, status="stopped")]) == []


def test_of_equal_scores_the_lower_loss_and_then_the_smaller_wins() -> None:
    worse = trial(1, 0, 0.5)
    better = trial(2, 0, 0.5, metrics={"val": {"top1": 0.5, "loss": 0.5}})
    small = trial(3, 0, 0.5, parameters={"trainable": 1})
    assert [s.results[0].digest for s in ranked([worse, better, small])] == ["20", "30", "10"]


def test_seeds_give_a_mean_and_its_standard_error() -> None:
    (setting,) = ranked([trial(1, seed, val) for seed, val in enumerate((0.2, 0.4, 0.9))])
    found = setting.summary("val")["top1"]
    assert found["mean"] == pytest.approx(0.5)
    # Source: deviations -0.3, -0.1, 0.4 of the mean; their squares sum to 0.26; m is 3.
    assert found["standard_error"] == pytest.approx(sqrt(0.26 / 2) / sqrt(3))
    (alone,) = ranked([trial(1, 0, 0.5)])
    assert alone.summary("test")["top1"] == {"mean": 0.5, "standard_error": None}


def test_a_table_has_a_line_a_trial_and_a_column_a_field_that_varies() -> None:
    failed = trial(4, 1, 0.0, status="failed", metrics={}, reason="a, b\n", timing={})
    rows = list(csv.DictReader(io.StringIO(table_bytes([trial(4, 0, 0.25), failed]).decode())))
    assert [row["seed"] for row in rows] == ["0", "1"]
    assert "rank" not in rows[0]
    assert (rows[0]["val_top1"], rows[0]["test_top1"], rows[0]["seconds"]) == ("0.25", "0.5", "1.5")
    assert (rows[1]["status"], rows[1]["val_top1"], rows[1]["reason"]) == ("failed", "", "a, b\n")
