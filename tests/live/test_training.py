"""Claims of losa.live.training."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from losa.adapt.checkpoint import load_card
from losa.adapt.progress import ProgressEvent
from losa.adapt.train import adapt
from losa.config import AdaptConfig, ExtractConfig, LiveConfig
from losa.device import Compute
from losa.errors import InputError, MismatchError, SkippedError, UsageError
from losa.extract import planning
from losa.extract.backbones import Backbone
from losa.extract.extraction import Extraction
from losa.extract.planning import asked_backbone
from losa.extract.run import extract
from losa.features import StoreDtype
from losa.live.training import adapt_live, extraction_of
from tests.command import Losa
from tests.extract.overflow import WHITE, always, in_autocast, overflow, with_white
from tests.extract.picture_folder import picture_folder

FLAGS = (
    *("--model", "vit_tiny_patch16_224", "--weights", "random", "--img-size", "32"),
    *("--taps", "2,11", "-j", "0"),
)


@pytest.fixture(scope="module")
def backbones() -> dict[str, Backbone]:
    return {}


@pytest.fixture(autouse=True)
def _each_backbone_is_built_once(
    monkeypatch: pytest.MonkeyPatch, backbones: dict[str, Backbone]
) -> None:
    """They are frozen, and building one takes longer than a training here."""

    def asked(config: ExtractConfig, compute: Compute) -> Backbone:
        fields = {"model", "weights", "img_size", "taps", "tokens", "store_dtype", "amp_dtype"}
        key = config.model_dump_json(include=fields)
        if key not in backbones:
            backbones[key] = asked_backbone(config, compute)
        return backbones[key]

    monkeypatch.setattr(planning, "asked_backbone", asked)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("live") / "pictures"
    return picture_folder(root, {"train": 5, "val": 2, "test": 2})


def recipe(data: Path, out: Path, **live: Any) -> AdaptConfig:
    """Two epochs of LoSA beside a ViT-Ti with random weights, 5 tokens of 192 channels."""
    values: dict[str, Any] = {
        "model": "vit_tiny_patch16_224",
        "weights": "random",
        "dataset": f"folder:{data}",
        "img_size": 32,
        "taps": "2,11",
        "calibration_rows": 8,
        "num_workers": 0,
    }
    return AdaptConfig(
        live=LiveConfig(**{**values, **live}),
        out=out,
        rank=2,
        epochs=2,
        batch_size=4,
        device="cpu",
        seed=3,
    )


def cached(config: AdaptConfig, folder: Path) -> AdaptConfig:
    """The same training on a store that is extracted for it."""
    store = folder / "s.zarr"
    extract(extraction_of(config).model_copy(update={"store": store, "durability": "none"}))
    return config.model_copy(update={"live": None, "store": store, "out": folder / "cached"})


def weights(run: Path, which: str = "best") -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run / f"{which}.safetensors")


@pytest.mark.parametrize(("dtype", "views"), [("float32", 1), ("int8", 2), ("bfloat16", 1)])
def test_a_live_training_ends_as_extraction_and_training_on_the_store(
    pictures: Path, tmp_path: Path, dtype: StoreDtype, views: int
) -> None:
    config = recipe(pictures, tmp_path / "live", store_dtype=dtype, views=views)
    live, stored = adapt_live(config), adapt(cached(config, tmp_path))
    ours, theirs = weights(tmp_path / "live"), weights(tmp_path / "cached")
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-5)
    assert live.metrics["test"]["top1"] == stored.metrics["test"]["top1"]
    assert live.metrics["test"]["loss"] == pytest.approx(stored.metrics["test"]["loss"], abs=1e-5)


def test_the_card_of_a_live_run_says_what_the_card_on_the_store_does(
    pictures: Path, tmp_path: Path
) -> None:
    config = recipe(pictures, tmp_path / "live", store_dtype="int8")
    adapt_live(config)
    adapt(cached(config, tmp_path))
    ours, theirs = (load_card(tmp_path / name).to_json() for name in ("live", "cached"))
    assert ours.pop("store_id") != theirs.pop("store_id")
    assert ours.pop("config_digest") != theirs.pop("config_digest")
    assert ours == theirs


def test_nothing_but_the_run_is_written(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    adapt_live(recipe(pictures, tmp_path / "run"))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_live_run_that_was_interrupted_ends_with_the_same_bits(
    pictures: Path, tmp_path: Path
) -> None:
    adapt_live(recipe(pictures, tmp_path / "whole"))
    config = recipe(pictures, tmp_path / "cut")

    def stop(event: ProgressEvent) -> None:
        if (event.phase, event.epoch, event.step) == ("train", 1, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapt_live(config, progress=stop)
    adapt_live(config)
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(cut[name], value) for name, value in whole.items())
    lines = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "cut")]
    assert lines[0] == lines[1]


def test_another_backbone_does_not_go_on_with_a_run(pictures: Path, tmp_path: Path) -> None:
    adapt_live(recipe(pictures, tmp_path / "run"))
    with pytest.raises(MismatchError, match="holds another run"):
        adapt_live(recipe(pictures, tmp_path / "run", tokens="summary"))


def test_a_picture_that_cannot_be_read_ends_the_training_and_is_named(
    pictures: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(pictures, tmp_path / "data"))
    (data / "val/red/000.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"val/red/000\.png.*--on-error skip"):
        adapt_live(recipe(data, tmp_path / "run"))


def test_skipped_pictures_are_left_out_as_the_store_leaves_them_out(
    pictures: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(pictures, tmp_path / "data"))
    (data / "train/red/000.png").write_bytes(b"")
    (data / "test/red/000.png").write_bytes(b"")
    config = recipe(data, tmp_path / "live", store_dtype="float32", on_error="skip", max_skip=0.1)
    live, stored = adapt_live(config), adapt(cached(config, tmp_path))
    assert live.metrics["test"]["skipped"] == stored.metrics["test"]["skipped"] == 1
    assert live.metrics["test"]["top1"] == stored.metrics["test"]["top1"]
    for name, value in weights(tmp_path / "cached").items():
        torch.testing.assert_close(weights(tmp_path / "live")[name], value, rtol=0, atol=1e-5)


def test_targets_by_key_reach_live_rows_as_they_reach_stored_ones(
    pictures: Path, tmp_path: Path
) -> None:
    config = recipe(pictures, tmp_path / "live", store_dtype="float32")
    listed = sorted(str(path.relative_to(pictures)) for path in pictures.rglob("*.png"))
    lines = [f"{key},{place % 5},{-place}" for place, key in enumerate(listed) if place % 4]
    file = tmp_path / "targets.csv"
    file.write_text("\n".join(["key,age,size", *lines]))
    config = config.model_copy(update={"targets": file})
    live, stored = adapt_live(config), adapt(cached(config, tmp_path))
    assert live.metrics["val"]["rows"] + live.metrics["test"]["rows"] < 12
    for split, found in live.metrics.items():
        assert found["rows"] == stored.metrics[split]["rows"] > 0
        assert found["loss"] == pytest.approx(stored.metrics[split]["loss"], rel=1e-4)
    for name, value in weights(tmp_path / "cached").items():
        torch.testing.assert_close(weights(tmp_path / "live")[name], value, rtol=0, atol=1e-5)


def test_a_training_does_not_go_on_with_other_pictures_than_it_began_with(
    pictures: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(pictures, tmp_path / "data"))
    config = recipe(data, tmp_path / "run", on_error="skip", max_skip=0.1)
    adapt_live(config)
    (data / "train/red/000.png").write_bytes(b"")
    with pytest.raises(MismatchError, match="store_id: "):
        adapt_live(config)


def test_more_skips_than_allowed_end_it_before_the_first_step(
    pictures: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(pictures, tmp_path / "data"))
    (data / "train/red/000.png").write_bytes(b"")
    with pytest.raises(SkippedError, match="1 of 27 samples"):
        adapt_live(recipe(data, tmp_path / "run", on_error="skip"))
    assert not (tmp_path / "run").exists()


def test_ways_to_read_a_store_are_refused(pictures: Path, tmp_path: Path) -> None:
    config = recipe(pictures, tmp_path / "run").model_copy(update={"read": "mmap"})
    with pytest.raises(UsageError, match="--read"):
        adapt_live(config)


def test_a_live_run_predicts_and_is_evaluated_on_raw_media(
    losa: Losa, pictures: Path, tmp_path: Path
) -> None:
    run, data = tmp_path / "run", f"folder:{pictures}"
    small = ("--rank", 2, "--epochs", 2, "-b", 4, "--device", "cpu")
    trained = losa("adapt", "--live", *FLAGS, "--dataset", data, "--out", run, *small)
    assert trained.code == 0, trained.err
    raw = ("--run", run, "--weights", "random", "--device", "cpu")
    measured = losa("evaluate", *raw, "--dataset", data)
    assert measured.value["top1"] == trained.value["metrics"]["test"]["top1"]
    expected = trained.value["metrics"]["test"]["loss"]
    assert measured.value["loss"] == pytest.approx(expected, abs=1e-5)
    guess = losa("predict", *raw, pictures / "test/red/000.png")
    assert guess.code == 0
    nowhere = losa("evaluate", "--run", run)
    assert nowhere.code == 2
    assert "trained live" in nowhere.err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--model", "vit_s"), "--model: needs --live"),
        (("--live", "--store", "s.zarr"), "--store: does not go with --live"),
        (("--live", "--model", "vit_s"), "--dataset is needed"),
    ],
)
def test_flags_that_do_not_go_together_cost_one_line(
    losa: Losa, given: tuple[str, ...], said: str
) -> None:
    result = losa("adapt", *given)
    assert result.code == 2
    assert said in result.err
    assert result.err.count("\n") == 1


def test_a_files_live_section_is_overridden_by_flags(
    losa: Losa, pictures: Path, tmp_path: Path
) -> None:
    lines = [
        "rank: 2",
        "epochs: 1",
        "batch_size: 4",
        "live:",
        "  model: vit_tiny_patch16_224",
        "  weights: random",
        f"  dataset: folder:{pictures}",
        "  img_size: 32",
        "  num_workers: 0",
    ]
    (tmp_path / "c.yaml").write_text("\n".join(lines))
    given = ("--config", tmp_path / "c.yaml", "--taps", "5", "--out", tmp_path / "run")
    assert losa("adapt", *given, "--tokens", "summary").code == 0
    card = load_card(tmp_path / "run")
    assert card.spec.taps == (5,)
    assert card.spec.grid.num_tokens == 2


def test_a_live_training_mends_what_autocast_overflows_as_extraction_does(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = with_white(Path(shutil.copytree(pictures, tmp_path / "data")))
    overflow(monkeypatch, torch.inf, in_autocast)
    config = recipe(data, tmp_path / "live").model_copy(update={"amp_dtype": "bfloat16"})
    live, stored = adapt_live(config), adapt(cached(config, tmp_path))
    for name, value in weights(tmp_path / "cached").items():
        assert torch.equal(weights(tmp_path / "live")[name], value), name
    assert live.metrics == stored.metrics
    overflow(monkeypatch, torch.nan, always)
    said = rf"{WHITE}: its features at tap 11 do not fit float16; use --store-dtype bfloat16"
    with pytest.raises(InputError, match=said):
        adapt_live(config.model_copy(update={"out": tmp_path / "other"}))


@pytest.mark.parametrize("targets", [False, True])
def test_a_finished_live_run_is_found_again_without_a_calibration(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, targets: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    config = recipe(pictures, tmp_path / "run").model_copy(update={"out": None})
    if targets:
        keys = sorted(str(path.relative_to(pictures)) for path in pictures.rglob("*.png"))
        lines = [f"{key},{place % 5}" for place, key in enumerate(keys)]
        (tmp_path / "t.csv").write_text("\n".join(["key,age", *lines]))
        config = config.model_copy(update={"targets": tmp_path / "t.csv"})
    report = adapt_live(config)

    def calibrate(*_: Any) -> None:
        raise AssertionError("calibrated again")

    monkeypatch.setattr(Extraction, "calibrate", calibrate)
    again = config.model_copy(update={"regression_loss": config.regression_loss, "prefetch": 3})
    assert adapt_live(again) == report
    for changes in ({"lr": 1.0}, {"overwrite": True}):
        with pytest.raises(AssertionError, match="calibrated again"):
            adapt_live(config.model_copy(update=changes))
