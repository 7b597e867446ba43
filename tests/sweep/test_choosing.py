"""Choice is on val over seeds; test takes no part; the winner's command is exact."""

from __future__ import annotations

import csv
import io
import shlex
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from losa.cli import app
from losa.config import AdaptConfig
from losa.sweep.choosing import WITHOUT_FLAG, command_of, ranked, table_bytes
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
    assert found[1].failed == 1


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


def test_a_command_is_the_whole_setting(tmp_path: Path) -> None:
    config = AdaptConfig(
        store=Path("a b.zarr"),
        rank=3,
        lr=0.1 + 0.2,
        mixer_norm=True,
        data_seed=0,
        seed=4,
        patience=3,
        taps="1,3",
        out=tmp_path / "t" / "x",
    )
    words = shlex.split(command_of(config.model_dump(mode="json")))
    flags, values = words[2::1], AdaptConfig().model_dump()
    while flags:
        name = flags.pop(0).removeprefix("--").replace("-", "_")
        values[name] = True if not flags or flags[0].startswith("--") else flags.pop(0)
    assert AdaptConfig(**values) == config.model_copy(update={"out": None})


def test_what_has_no_flag_is_said_by_the_trials_file() -> None:
    config = AdaptConfig(clip=2.0, out=Path("runs/sweep/trials/ab")).model_dump(mode="json")
    assert command_of(config) == (
        "losa adapt --store features.zarr --config runs/sweep/trials/ab/config.yaml"
        " --out runs/sweep/again-ab"
    )


def test_the_fields_without_a_flag_are_those_that_the_command_line_lacks() -> None:
    adapt = typer.main.get_command(app).commands["adapt"]  # type: ignore[attr-defined]  # a group
    taken = {flag.name for flag in adapt.params}
    assert set(WITHOUT_FLAG) == AdaptConfig.model_fields.keys() - taken


def test_a_run_command_survives_yaml() -> None:
    config = AdaptConfig(rank=3).model_dump(mode="json")
    assert command_of(yaml.safe_load(yaml.safe_dump(config))) == command_of(config)
