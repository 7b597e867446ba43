"""Clips from their files to a store, a run and a prediction, as images go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from losa.adapt.evaluate import EvaluateRequest, evaluate_store
from losa.adapt.rundir import load_config
from losa.adapt.train import adapt
from losa.config import AdaptConfig, LiveConfig
from losa.device import resolve_compute
from losa.errors import MismatchError, UsageError
from losa.extract.clips.loading import load_clip
from losa.extract.images import ImageStatus
from losa.extract.media import Media
from losa.extract.planning import asked_backbone
from losa.extract.recompute import RecomputeRequest, recompute_rows
from losa.extract.run import extract
from losa.live.evaluate import LiveRequest, evaluate_dataset
from losa.live.predict import PredictRequest, predict
from losa.live.training import adapt_live
from losa.store import open_store
from tests.extract.clips.clip_folder import clip_config, clip_folder
from tests.extract.extending import built_once

VIEWS = {"views": 2, "clips": 2, "crops": 2, "store_dtype": "float32"}


@pytest.fixture(scope="module", autouse=True)
def quick_backbones() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("losa.extract.planning.build_backbone", built_once)
        yield


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip_folder(tmp_path_factory.mktemp("clips"), {"train": 3, "val": 2})


@pytest.fixture(scope="module")
def store(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "s.zarr"
    extract(clip_config(clips, path, **VIEWS))
    return path


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "r"
    adapt(training(store=store, out=out))
    return out


def training(**values: Any) -> AdaptConfig:
    usual = {"epochs": 1, "batch_size": 4, "rank": 2, "device": "cpu", "read_threads": 1}
    return AdaptConfig(**{**usual, **values})


def test_every_row_is_what_the_backbone_says_of_its_view(clips: Path, store: Path) -> None:
    opened = open_store(store)
    config = clip_config(clips, store, **VIEWS)
    backbone = asked_backbone(config, resolve_compute("cpu", "none"))
    for split in ("train", "val"):
        reader = opened.split(split)
        assert reader.rows == {"train": 6 * 2, "val": 4 * 4}[split]
        pairs = zip(reader.source_index.tolist(), reader.views.tolist(), strict=True)
        for row, (index, view) in enumerate(pairs):
            if split == "train" and view:
                continue
            path = clips / reader.samples[index].path
            media = Media(path, view=view, is_trained_on=split == "train")
            pixels = torch.from_numpy(load_clip(media, backbone.preprocessing))[None]
            out = np.empty((2, 1, *opened.spec.shape[1:]), np.float32)
            reader.read_into(np.array([row]), opened.spec.taps, out)
            for plane, stored in zip(backbone(pixels), out, strict=True):
                np.testing.assert_allclose(plane[0].numpy(), stored[0], atol=1e-4)
    grid = opened.spec.grid
    assert (grid.time, grid.prefix, grid.num_tokens) == (4, 4, 4 * 5)


def test_views_of_a_sample_differ_and_view_0_is_the_one_nearest_the_middle(store: Path) -> None:
    opened = open_store(store)
    for split in ("train", "val"):
        reader = opened.split(split)
        rows = np.flatnonzero(reader.source_index == 0)
        out = np.empty((1, len(rows), *opened.spec.shape[1:]), np.float32)
        reader.read_into(rows, opened.spec.taps[:1], out)
        assert len(np.unique(out.reshape(len(rows), -1), axis=0)) == len(rows)


def test_a_second_extraction_computes_nothing(clips: Path, store: Path) -> None:
    assert extract(clip_config(clips, store, **VIEWS))["computed_rows"] == 0


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"frames": 5}, "clip.frames: 5 / 4"),
        ({"frame_stride": 2}, "clip.stride: 2 / None"),
        ({"short": "loop"}, "clip.short: loop / pad"),
        ({"clips": 4}, "clip.clips: 4 / 2"),
    ],
)
def test_other_frames_are_another_store(
    clips: Path, store: Path, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(MismatchError, match=f"preprocessing.{field}"):
        extract(clip_config(clips, store, **{**VIEWS, **changes}))


def test_an_interrupted_extraction_of_clips_ends_as_an_uninterrupted_one(
    clips: Path, store: Path, tmp_path: Path
) -> None:
    class Stop(Exception):  # noqa: N818 -- no error
        pass

    def stop(event: Any) -> None:
        if event.phase == "extract" and event.done >= 8:
            raise Stop

    path = tmp_path / "s.zarr"
    with pytest.raises(Stop):
        extract(clip_config(clips, path, **VIEWS), progress=stop)
    again = extract(clip_config(clips, path, **VIEWS))

    assert 0 < again["computed_rows"] < 28
    assert again["store_id"] == open_store(store).store_id


def test_rows_computed_again_are_those_that_are_stored(clips: Path, store: Path) -> None:
    request = RecomputeRequest(store, 28, clips, "random", 0, "cpu")

    found = recompute_rows(request)

    assert (found["rows"], found["failed"]) == (28, 0)


def test_a_clip_that_is_gone_or_broken_is_one_skipped_row_for_each_view(
    clips: Path, tmp_path: Path
) -> None:
    names = sorted((clips / "val" / "a").iterdir())
    (clips / "broken.mp4").write_bytes(names[0].read_bytes()[:500])
    lines = [
        "path,label,split",
        f"{names[0].relative_to(clips)},x,train",
        f"{names[1].relative_to(clips)},y,train",
        "gone.mp4,x,val",
        "broken.mp4,y,val",
    ]
    listing = clips / "list.csv"
    listing.write_text("\n".join(lines) + "\n")
    config = clip_config(clips, tmp_path / "s.zarr", on_error="skip", max_skip=1.0, clips=3)

    result = extract(config.model_copy(update={"dataset": f"csv:{listing}"}))

    reader = open_store(tmp_path / "s.zarr").split("val")
    assert result["skipped"] == reader.rows == 6
    status = reader.status[reader.source_index == 0]
    assert status.tolist() == [ImageStatus.MISSING] * 3


def test_decode_workers_give_what_this_process_gives(
    clips: Path, store: Path, tmp_path: Path
) -> None:
    extract(clip_config(clips, tmp_path / "s.zarr", **VIEWS, num_workers=2))

    assert open_store(tmp_path / "s.zarr").store_id == open_store(store).store_id


def test_training_chooses_by_the_clean_view_and_evaluation_averages_all(
    store: Path, run: Path
) -> None:
    assert adapt(training(store=store, out=run)).metrics["val"]["rows"] == 4
    clean = evaluate_store(EvaluateRequest(run, split="val", device="cpu")).result
    mean = evaluate_store(EvaluateRequest(run, split="val", device="cpu", views="average")).result
    assert clean["rows"] == mean["rows"] == 4
    assert mean["views"] == "average"
    assert mean["loss"] != clean["loss"]


def test_a_store_of_more_test_views_is_one_for_the_same_run(
    clips: Path, run: Path, tmp_path: Path
) -> None:
    extract(clip_config(clips, tmp_path / "t.zarr", store_dtype="float32", clips=4, split=("val",)))

    request = EvaluateRequest(
        run, store=tmp_path / "t.zarr", split="val", device="cpu", views="average"
    )
    assert evaluate_store(request).result["rows"] == 4


def test_raw_clips_score_as_their_stored_features_do(clips: Path, run: Path) -> None:
    cached = evaluate_store(EvaluateRequest(run, split="val", device="cpu")).result
    live: dict[str, Any] = {}
    for is_mirrored in (False, True):
        request = LiveRequest(
            *(run, f"folder:{clips}", clips, "val", "random"),
            device="cpu",
            num_workers=0,
            is_mirrored=is_mirrored,
        )
        live[str(is_mirrored)] = evaluate_dataset(request, progress=lambda _: None).result

    assert live["False"]["loss"] == pytest.approx(cached["loss"], abs=1e-5)
    assert live["True"]["loss"] != live["False"]["loss"]


def test_a_video_file_is_predicted_as_its_cached_features_are(
    clips: Path, store: Path, run: Path
) -> None:
    request = PredictRequest(run, (clips / "val",), "random", store, device="cpu", num_workers=0)

    found = predict(request)

    assert len(found["predictions"]) == 4
    assert found["cache_check"]["compared"] == 4
    assert found["cache_check"]["max_abs_difference"] < 1e-4


def test_clips_are_trained_on_beside_the_backbone(clips: Path, run: Path, tmp_path: Path) -> None:
    config = clip_config(clips, tmp_path / "none.zarr", **VIEWS)
    asked = {name: getattr(config, name) for name in LiveConfig.model_fields}
    report = adapt_live(training(live=LiveConfig(**asked), out=tmp_path / "live"))

    cached = adapt(training(store=open_store_of(run), out=run))
    assert report.metrics["val"]["rows"] == 4
    assert report.metrics["val"]["loss"] == pytest.approx(cached.metrics["val"]["loss"], abs=1e-4)


def open_store_of(run: Path) -> Path:
    """The store that a run was trained on."""
    return load_config(run).store


def test_crops_of_what_is_squashed_are_a_mistake(clips: Path, tmp_path: Path) -> None:
    backbone = asked_backbone(clip_config(clips, tmp_path), resolve_compute("cpu", "none"))
    clip = backbone.preprocessing.clip
    assert clip is not None

    with pytest.raises(UsageError, match=r"^--crops: 3 crops along a side that crop mode 'squash'"):
        replace(backbone.preprocessing, crop_mode="squash", clip=replace(clip, crops=3))
