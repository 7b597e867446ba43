"""Claims of benchmarks.ablation."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from benchmarks import ablation
from benchmarks.ablation import VARIANTS, main, measure
from losa.config import AdaptConfig


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_a_valid_configuration_that_differs_from_the_default(name: str) -> None:
    changed = AdaptConfig(**VARIANTS[name])
    assert (changed == AdaptConfig()) == (name == "default")


def test_an_unknown_task_costs_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--tasks", "digits,dogs"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("losa: error: --tasks: 'dogs' is unknown")
    assert error.count("\n") == 1


def test_a_variant_is_the_mean_over_seeds_and_names_the_commits_of_its_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def found(config: AdaptConfig) -> tuple[Any, str]:
        scores = {"top1": 0.5 + config.seed / 10, "loss": 1.0}
        report = argparse.Namespace(
            metrics={"val": scores, "test": scores},
            parameters={"trainable": 7},
            timing={"seconds": 2.0},
        )
        return report, "ba"[config.seed]

    monkeypatch.setattr(ablation, "train_or_find", found)
    options = argparse.Namespace(seeds=2, out=tmp_path, fresh=False)
    result = measure("count", tmp_path / "s.zarr", "rank: 2", {"rank": 2}, options)
    assert result["val_top1"] == result["test_top1"] == pytest.approx(0.55)
    assert result["commits"] == ["a", "b"]
