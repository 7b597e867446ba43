"""Claims of benchmarks.online."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import online, tasks
from benchmarks.onlinenets import METHODS
from benchmarks.onlinetrain import Recipe
from losa.errors import MismatchError
from tests.benchmarks.conftest import Published
from tests.extract.picture_folder import picture_folder


def trained(_: object, data: object, recipe: Recipe, compute: object) -> dict[str, Any]:
    """The largest rate is best on test; 0.1 and 0.2 tie on val, where 0.2 has the lower loss."""
    del data, compute
    val: Mapping[float, tuple[float, float]] = {0.1: (0.8, 1.0), 0.2: (0.8, 0.5), 0.3: (0.7, 0.1)}
    return {
        "val": dict(zip(("top1", "loss"), val[recipe.lr], strict=True)),
        "test": {"top1": recipe.lr + recipe.seed / 10, "loss": 1.0},
        "trainable": 7,
        "seconds": 2.0,
        "seconds_per_epoch": 1.0,
    }


Measured = Callable[[int], online.Result]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> online.Bench:
    monkeypatch.setattr(online, "train", trained)
    nothing: Any = None
    return online.Bench("digits", nothing, {}, nothing, tmp_path / "runs", {"weights": "abc"})


@pytest.fixture
def measured(bench: online.Bench) -> Measured:
    def measure(seeds: int) -> online.Result:
        argv = ["--seeds", str(seeds), "--epochs", "5"]
        options = online._options(argv)
        options.lrs = (0.1, 0.2, 0.3)
        return bench.measure("lora", options)

    return measure


def test_the_rate_is_chosen_on_val_and_the_chosen_averaged_over_seeds(measured: Measured) -> None:
    found = measured(3)
    assert found.lr == 0.2
    assert found.test_by_seed == pytest.approx((0.2, 0.3, 0.4))
    assert found.test_error == pytest.approx(0.1 / 3**0.5)


def test_what_has_a_record_is_not_trained_again(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measured(1)
    runs: list[Recipe] = []

    def counted(*given: Any) -> dict[str, Any]:
        runs.append(given[2])
        return trained(*given)

    monkeypatch.setattr(online, "train", counted)
    assert measured(2).lr == first.lr
    assert [(recipe.lr, recipe.seed) for recipe in runs] == [(0.2, 1)]


def test_results_name_the_commits_of_their_trainings(
    bench: online.Bench, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online, "commit", lambda: "first")
    assert measured(1).commits == ("first",)
    monkeypatch.setattr(online, "commit", lambda: "second")
    assert measured(2).commits == ("first", "second")
    # A record that does not say so makes no claim.
    path = next(bench.runs.rglob("*lr0.3*.json"))
    record = json.loads(path.read_text())
    del record["commit"]
    path.write_text(json.dumps(record))
    assert measured(2).commits == ("first", "second", "unknown")


@pytest.mark.parametrize("changed", ["weights", "weight decay", "rank", "batch"])
def test_what_a_result_depends_on_is_part_of_the_name_of_its_record(
    bench: online.Bench, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    recipe = Recipe("lora", 0.1, seed=0, epochs=5)
    bench.trained(recipe)
    if changed == "weights":
        monkeypatch.setitem(bench.identity, "weights", "other")
    if changed == "weight decay":
        method = replace(METHODS["lora"], weight_decay=0.5)
        monkeypatch.setattr(online, "METHODS", {"lora": method})
    if changed == "rank":
        monkeypatch.setattr(online, "LORA_RANK", 4)
    if changed == "batch":
        recipe = replace(recipe, batch_size=7)
    bench.trained(recipe)
    records = [json.loads(path.read_text()) for path in bench.runs.rglob("*.json")]
    assert len(records) == 2
    assert records[0]["settings"] != records[1]["settings"]


def test_a_record_that_is_not_what_its_name_says_is_refused(bench: online.Bench) -> None:
    recipe = Recipe("lora", 0.1, seed=0, epochs=5)
    bench.trained(recipe)
    (path,) = bench.runs.rglob("*.json")
    path.write_text(path.read_text().replace('"seed":0', '"seed":1'))
    with pytest.raises(MismatchError, match="is the record of another training"):
        bench.trained(recipe)


def test_all_tasks_of_the_suite_are_asked_by_default() -> None:
    assert online._options([]).tasks.split(",") == list(tasks.DATA)


def test_a_training_that_diverged_is_chosen_last(monkeypatch: pytest.MonkeyPatch) -> None:
    assert online._on_val({"val": None}) < online._on_val({"val": {"top1": 0.0, "loss": 99.0}})


@pytest.mark.parametrize("flag", ["--tasks", "--methods", "--lrs"])
def test_a_mistake_costs_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    assert online.main([flag, "dogs"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_command_trains_on_real_pixels_and_its_second_call_only_reads(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = picture_folder(tmp_path / "pictures", {"train": 4, "val": 2, "test": 2})
    monkeypatch.setattr(tasks, "DATA", {"digits": lambda _: folder})
    argv = [
        *("--tasks", "digits", "--methods", "bitfit,vpt", "--seeds", "1", "--epochs", "1"),
        *("--lrs", "1e-3", "--model", "vit_tiny_patch16_224", "--weights", "random"),
        *("--img-size", "32", "--num-workers", "0", "--out", str(tmp_path / "runs")),
    ]
    assert online.main([*argv, "--device", "cpu"]) == 0
    first = published("online")["results"]
    assert [row["method"] for row in first] == ["bitfit", "vpt"]
    records = sorted(path.name for path in (tmp_path / "runs").rglob("*.json"))
    assert [name.rpartition("-")[0] for name in records] == [
        "bitfit-lr0.001-seed0",
        "vpt-lr0.001-seed0",
    ]
    path = next((tmp_path / "runs").rglob("vpt*.json"))
    assert json.loads(path.read_text())["test"]["top1"] == first[1]["test_top1"]
    assert online.main([*argv, "--device", "cpu"]) == 0
    assert published("online")["results"] == first
