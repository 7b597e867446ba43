"""Claims of losa.live.evaluate."""

from __future__ import annotations

import csv
import io
import logging
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from losa.adapt.checkpoint import load_card
from losa.adapt.evaluate import evaluate
from losa.adapt.train import adapt
from losa.config import AdaptConfig
from losa.errors import InputError, MismatchError
from losa.extract.extraction import ExtractEvent
from losa.extract.run import extract
from losa.live import evaluate as live_evaluate
from losa.live.backbone import LivePipeline
from losa.live.evaluate import LiveRequest, evaluate_dataset
from losa.store import open_store
from tests.extract.overflow import always, overflow
from tests.extract.picture_folder import COLOURS, picture_folder, tiny_config
from tests.extract.shards import write_shard
from tests.live.trained import Trained, train_small


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_small(tmp_path_factory.mktemp("evaluate"))


def request(trained: Trained, data: Path, split: str = "test") -> LiveRequest:
    return LiveRequest(
        trained.run, f"folder:{data}", Path(), split, "random", batch_size=4, num_workers=0
    )


def test_raw_media_score_as_the_store_of_them_does(trained: Trained) -> None:
    told: list[ExtractEvent] = []
    live = evaluate_dataset(request(trained, trained.pictures), progress=told.append).result
    cached = evaluate(trained.run, trained.store, "test", device="cpu")
    for name in ("top1", "top5", "mean_per_class", "rows"):
        assert live[name] == cached[name]
    assert live["loss"] == pytest.approx(cached["loss"], abs=1e-3)
    # The run trained in bfloat16; beside a live backbone, whose store was computed in float32, its
    # adaptor does not.
    assert (live["amp_dtype"], live["backbone_amp_dtype"]) == ("none", "none")
    assert told[-1].done == told[-1].total == 9


def test_an_unreadable_picture_counts_as_wrong(trained: Trained, tmp_path: Path) -> None:
    data = Path(shutil.copytree(trained.pictures, tmp_path / "data"))
    (data / "test/red/000.png").write_bytes(b"")
    found = evaluate_dataset(request(trained, data), progress=lambda _: None).result
    assert (found["rows"], found["skipped"]) == (9, 1)
    assert found["top1"] == pytest.approx(found["top1_readable"] * 8 / 9)


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_a_picture_whose_features_do_not_fit_counts_as_wrong(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_mirrored: bool
) -> None:
    data = Path(shutil.copytree(trained.pictures, tmp_path / "data"))
    Image.new("RGB", (32, 32), (255, 255, 255)).save(data / "test/red/000.png")
    overflow(monkeypatch, torch.nan, always)
    asked = replace(request(trained, data), is_mirrored=is_mirrored)
    found = evaluate_dataset(asked, progress=lambda _: None).result
    assert (found["rows"], found["skipped"]) == (9, 1)
    assert math.isfinite(found["loss"])


def test_predictions_of_media_are_those_of_the_store_of_them(
    trained: Trained, tmp_path: Path
) -> None:
    live = evaluate_dataset(request(trained, trained.pictures), progress=lambda _: None)
    evaluate(trained.run, trained.store, device="cpu", predictions=tmp_path / "p.csv")
    ours, theirs = (
        list(csv.DictReader(io.StringIO(text)))
        for text in (live.predictions.csv().decode(), (tmp_path / "p.csv").read_text())
    )
    for name in ("key", "label", "predicted"):
        assert [row[name] for row in ours] == [row[name] for row in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert float(one["probability"]) == pytest.approx(float(other["probability"]), abs=1e-2)


def test_a_picture_and_its_mirror_image_are_averaged(trained: Trained) -> None:
    asked = replace(request(trained, trained.pictures), is_mirrored=True)
    assert evaluate_dataset(asked, progress=lambda _: None).result["views"] == "flip"
    pipeline = LivePipeline(trained.run, "random", "cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    looks = [
        pipeline.logits(np.ascontiguousarray(seen)).double().softmax(1)
        for seen in (pixels, pixels[:, :, ::-1])
    ]
    found = live_evaluate._logits(pipeline, pixels, asked).softmax(1)
    np.testing.assert_allclose(found, (looks[0] + looks[1]) / 2, atol=1e-5)
    assert (looks[0] - looks[1]).abs().max() > 1e-3  # or there would be nothing to average


def test_other_classes_are_refused(trained: Trained, tmp_path: Path) -> None:
    data = Path(shutil.copytree(trained.pictures, tmp_path / "data"))
    shutil.rmtree(data / "train/red")
    shutil.rmtree(data / "val/red")
    shutil.rmtree(data / "test/red")
    with pytest.raises(MismatchError, match=r"its 2 classes are not the run's 3"):
        evaluate_dataset(request(trained, data), progress=lambda _: None)


def test_shards_score_as_the_files_in_them_do(trained: Trained, tmp_path: Path) -> None:
    members: dict[str, bytes] = {}
    for file in sorted((trained.pictures / "test").glob("*/*.png")):
        key = f"{file.parent.name}/{file.stem}"
        members[f"{key}.png"], members[f"{key}.txt"] = file.read_bytes(), file.parent.name.encode()
    shard = write_shard(tmp_path / "test-0.tar", members)
    asked = replace(request(trained, tmp_path), dataset=f"wds:{shard}")
    live = evaluate_dataset(asked, progress=lambda _: None).result
    plain = evaluate_dataset(request(trained, trained.pictures), progress=lambda _: None).result
    for name in ("top1", "loss", "rows"):
        assert live[name] == plain[name]


@pytest.mark.parametrize("labels", ["", "red"])
def test_samples_with_several_labels_are_refused(
    trained: Trained, tmp_path: Path, labels: str
) -> None:
    rows = [f"{name}.png,{name},train" for name in COLOURS]
    lines = ["path,labels,split", *rows, f"x.png,{labels},test"]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    asked = replace(request(trained, tmp_path), dataset=f"csv:{tmp_path / 'list.csv'}")
    with pytest.raises(InputError, match="test has samples with several labels; give a split"):
        evaluate_dataset(asked, progress=lambda _: None)


def test_pictures_without_labels_are_refused(trained: Trained) -> None:
    asked = request(trained, trained.pictures / "test/red", split="train")
    with pytest.raises(MismatchError, match="its 0 classes are not the run's 3"):
        evaluate_dataset(asked, progress=lambda _: None)


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run on pictures without splits of their own, extracted with a seed that is not 0."""
    root = tmp_path_factory.mktemp("seeded")
    picture_folder(root, {"pictures": 10})
    found = Trained(root / "pictures", root / "s.zarr", root / "run")
    extract(tiny_config(found.pictures, found.store, seed=5))
    adapt(AdaptConfig(store=found.store, out=found.run, rank=2, epochs=2, batch_size=8))
    return found


def test_val_of_media_without_splits_is_the_val_of_the_runs_store(
    seeded: Trained, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="losa"):
        live = evaluate_dataset(
            request(seeded, seeded.pictures, "val"), progress=lambda _: None
        ).result
    cached = evaluate(seeded.run, seeded.store, "val", device="cpu")
    assert live["loss"] == pytest.approx(cached["loss"], abs=1e-3)
    assert "another set" not in caplog.text
    card = load_card(seeded.run)
    assert card.order_seed == 5
    splits = open_store(seeded.store).plan.splits
    assert card.listings == {name: split.listing for name, split in splits.items()}


def test_another_set_of_samples_is_scored_with_a_warning(
    seeded: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = Path(shutil.copytree(seeded.pictures, tmp_path / "pictures"))
    shutil.copy(data / "red/000.png", data / "red/extra.png")
    with caplog.at_level(logging.WARNING, logger="losa"):
        evaluate_dataset(request(seeded, data, "train"), progress=lambda _: None)
    assert "train is another set of samples than the train of the run's store" in caplog.text
