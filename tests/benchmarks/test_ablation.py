"""Claims of benchmarks.ablation."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import ablation
from benchmarks.ablation import USUAL, VARIANTS, _file_name, main, measure, trainable, variants
from losa.adapt.options import SideOptions
from losa.adapt.registry import UNUSED_OPTIONS
from losa.adapt.train import adapt
from losa.config import AdaptConfig
from losa.errors import InputError, UsageError
from tests.benchmarks.conftest import Published
from tests.store.build import small_store


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_a_valid_configuration_that_differs_from_the_default(name: str) -> None:
    changed = AdaptConfig(**VARIANTS[name])
    assert (changed == AdaptConfig()) == (name == "default")


def test_no_two_variants_are_the_same_or_lie_in_the_same_folder() -> None:
    assert len({_file_name(name) for name in VARIANTS}) == len(VARIANTS)
    assert len({repr(changes) for changes in VARIANTS.values()}) == len(VARIANTS)


def test_every_switch_of_the_side_network_has_a_variant() -> None:
    switches = {field.name for field in fields(SideOptions)} - set(UNUSED_OPTIONS["losa"])
    # The tasks are of images.
    switches -= {"token_mixing", "token_order", "time_rank", "clip_frames", "clip_stride"}
    assert switches <= {name for changes in VARIANTS.values() for name in changes}


@pytest.mark.parametrize(
    ("flag", "value"), [("--tasks", "dogs"), ("--only", "dogs"), ("--combine", "dogs")]
)
def test_an_unknown_name_costs_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], flag: str, value: str
) -> None:
    assert main([flag, value]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"losa: error: {flag}: 'dogs' is unknown")
    assert error.count("\n") == 1


def test_the_default_is_always_there_and_a_combination_is_one_variant() -> None:
    found = variants("rank: 2", ["pool: cls,standardise: raw"])
    assert list(found) == ["default", "rank: 2", "pool: cls + standardise: raw"]
    assert found["pool: cls + standardise: raw"] == {"pool": "cls", "standardise": "raw"}
    assert list(variants(None, [])) == list(VARIANTS)


def test_a_combination_that_says_one_thing_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="gives pool twice"):
        variants(None, ["pool: cls+mean,pool: cls"])


def test_taps_that_a_store_lacks_are_left_out_and_all_others_see_the_usual_ones() -> None:
    wanted = variants("taps: last,taps: last:2,taps: all,taps: 8+11", [])
    found, left_out = trainable(wanted, USUAL)
    assert found == {
        "default": {},
        "taps: last": {"taps": "11"},
        "taps: 8+11": {"taps": "8,11"},
    }
    assert left_out == ["taps: last:2", "taps: all"]
    assert trainable(wanted, tuple(range(12))) == (wanted, [])
    assert ablation.based_on(tuple(range(12))) == ablation.based_on(USUAL) == "2,5,8,11"
    assert ablation.based_on((3, 7)) == "3,7"


def options(tmp_path: Path) -> argparse.Namespace:
    return argparse.Namespace(seeds=2, out=tmp_path / "runs", fresh=False)


def test_a_variant_has_the_scores_of_its_seeds_and_the_commits_of_its_runs(
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
    changes = {"rank": 2, "epochs": 1}
    result = measure("count", tmp_path / "s.zarr", "rank: 2", changes, options(tmp_path))
    assert result.val_by_seed == result.test_by_seed == (0.5, 0.6)
    assert result.commits == ("a", "b")
    assert result.diverged == ()


def test_a_run_that_diverges_counts_as_zero_and_no_other_mistake_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def diverges(_: AdaptConfig) -> tuple[Any, str]:
        raise InputError("epoch 1, step 2", "loss or weights are not finite", "lower --lr")

    monkeypatch.setattr(ablation, "train_or_find", diverges)
    given = ("count", tmp_path / "s.zarr", "lr: 1", {"epochs": 1}, options(tmp_path))
    result = measure(*given)
    assert (result.val_by_seed, result.diverged, result.val_loss) == ((0.0, 0.0), (0, 1), None)

    def damaged(_: AdaptConfig) -> tuple[Any, str]:
        raise InputError("val", "is empty", "extract it")

    monkeypatch.setattr(ablation, "train_or_find", damaged)
    with pytest.raises(InputError, match="is empty"):
        measure(*given)


def test_a_second_call_trains_only_what_is_new(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, published: Published
) -> None:
    store = small_store(tmp_path / "toy.zarr")
    monkeypatch.setattr(ablation, "BLOCKS", (1, 3))
    monkeypatch.setattr(ablation, "USUAL", (1, 3))
    monkeypatch.setattr(ablation, "extracted", lambda *_: argparse.Namespace(store=store))
    trained: list[Any] = []

    def counted(config: AdaptConfig, **given: Any) -> Any:
        if config.out is not None and not (config.out / "report.json").is_file():
            trained.append((config.out.name, config.rank, config.pool))
        report = adapt(config, **given)
        # The small store has no test split.
        return replace(report, metrics={**report.metrics, "test": report.metrics["val"]})

    monkeypatch.setattr("losa.adapt.train.adapt", counted)
    argv = ["--tasks", "count", "--seeds", "1", "--epochs", "1", "--taps", "all"]
    argv += ["--out", str(tmp_path / "runs")]
    assert main([*argv, "--only", "rank: 2"]) == 0
    first = published("ablation")["results"]
    assert [row["variant"] for row in first] == ["default", "rank: 2"]
    assert main([*argv, "--only", "rank: 2", "--combine", "rank: 4,pool: cls"]) == 0
    second = published("ablation")["results"]
    assert second[:2] == first
    assert trained == [
        ("default-1epochs-seed0", 32, "auto"),
        ("rank-2-1epochs-seed0", 2, "auto"),
        ("rank-4+pool-cls-1epochs-seed0", 4, "cls"),
    ]
    assert "| rank: 4 + pool: cls |" in (tmp_path / "results" / "ablation.md").read_text()
