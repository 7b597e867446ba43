"""Claims of losa.live.predict."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from losa.errors import InputError, MismatchError
from losa.extract.run import extract
from losa.features import StoreDtype
from losa.live.backbone import LivePipeline
from losa.live.predict import PredictRequest, predict
from tests.extract.overflow import always, overflow
from tests.extract.picture_folder import tiny_config
from tests.live.trained import Trained, train_small


@pytest.fixture(scope="module", params=["float16", "float32", "bfloat16", "int8"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    dtype: StoreDtype = request.param
    return train_small(tmp_path_factory.mktemp(dtype), dtype)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_small(tmp_path_factory.mktemp("one"))


def test_live_logits_equal_cached_logits_and_name_the_same_classes(trained: Trained) -> None:
    request = PredictRequest(
        trained.run, (trained.pictures,), "random", trained.store, batch_size=5, num_workers=0
    )
    result = predict(request)
    assert result["cache_check"]["compared"] == len(result["predictions"]) == 42
    tolerance = 1e-4 if "float32" in str(trained.run) else 1e-2
    assert result["cache_check"]["max_abs_difference"] <= tolerance
    assert result["cache_check"]["same_classes"] is True
    assert result["cache_check"]["tolerance"] == tolerance


def test_top_classes_are_sorted_and_no_more_than_there_are(one: Trained) -> None:
    picture = one.pictures / "test/red/000.png"
    (item,) = predict(PredictRequest(one.run, (picture,), "random", top=9))["predictions"]
    shares = [best["probability"] for best in item["top"]]
    assert len(shares) == 3
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1.0, abs=1e-5)


def test_an_unreadable_image_costs_only_itself(one: Trained, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("<html>")
    good = one.pictures / "test/red/000.png"
    result = predict(PredictRequest(one.run, (tmp_path / "bad.png", good), "random"))
    assert "error" in result["predictions"][0]
    assert "top" in result["predictions"][1]


@pytest.mark.parametrize("name", ["none.png", "empty"])
def test_nothing_to_classify_is_an_error_by_name(one: Trained, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=name):
        predict(PredictRequest(one.run, (tmp_path / name,), "random"))


def test_a_single_picture_is_a_batch_of_one(one: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    logits = LivePipeline.logits

    def counted(self: LivePipeline, pixels: UInt8[np.ndarray, "b h w 3"]) -> Float[Tensor, "b y"]:
        sizes.append(len(pixels))
        return logits(self, pixels)

    monkeypatch.setattr(LivePipeline, "logits", counted)
    predict(PredictRequest(one.run, (one.pictures / "test/red/000.png",), "random"))
    assert sizes == [1]


def test_an_image_whose_features_do_not_fit_costs_only_itself(
    one: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    white, good = tmp_path / "white.png", one.pictures / "test/red/000.png"
    Image.new("RGB", (32, 32), (255, 255, 255)).save(white)
    overflow(monkeypatch, torch.inf, always)
    first, second = predict(PredictRequest(one.run, (white, good), "random"))["predictions"]
    assert first == {"path": str(white), "error": "features do not fit float16"}
    assert "top" in second


def test_files_that_the_store_does_not_list_are_compared_with_nothing(
    one: Trained, tmp_path: Path
) -> None:
    # The end of the path is listed, but not from the split's folder on.
    picture = tmp_path / "red/000.png"
    picture.parent.mkdir()
    shutil.copy(one.pictures / "test/red/000.png", picture)
    check = predict(PredictRequest(one.run, (picture,), "random", one.store))["cache_check"]
    assert (check["compared"], check["same_classes"]) == (0, None)
    assert check["max_abs_difference"] is None


def test_a_path_that_two_rows_share_is_not_compared(
    one: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    from losa.store import SplitReader

    listed = SplitReader.samples.func  # type: ignore[attr-defined]  # a cached property

    def without_split(self: SplitReader) -> object:
        return tuple(
            type(sample)(sample.key, sample.path.split("/", 1)[1], sample.label)
            for sample in listed(self)
        )

    monkeypatch.setattr(SplitReader, "samples", property(without_split))
    paths = (one.pictures / "train/red/000.png", one.pictures / "train/red/007.png")
    check = predict(PredictRequest(one.run, paths, "random", one.store))["cache_check"]
    assert check["compared"] == 1


def test_of_several_views_the_clean_one_is_compared(one: Trained, tmp_path: Path) -> None:
    extract(tiny_config(one.pictures, tmp_path / "s.zarr", views=3))
    request = PredictRequest(one.run, (one.pictures,), "random", tmp_path / "s.zarr", num_workers=0)
    check = predict(request)["cache_check"]
    assert check["compared"] == 42
    assert check["max_abs_difference"] <= 1e-2


def test_a_store_of_other_features_is_refused(one: Trained, tmp_path: Path) -> None:
    extract(tiny_config(one.pictures, tmp_path / "o.zarr", tokens="summary", split=("test",)))
    picture = one.pictures / "test/red/000.png"
    with pytest.raises(MismatchError, match=r"--store: has other features.*tokens: ") as caught:
        predict(PredictRequest(one.run, (picture,), "random", tmp_path / "o.zarr"))
    assert caught.value.exit_code == 5


def test_the_live_backbone_computes_as_the_stores_did(tmp_path: Path) -> None:
    found = train_small(tmp_path, amp_dtype="bfloat16")
    result = predict(
        PredictRequest(found.run, (found.pictures,), "random", found.store, num_workers=0)
    )
    assert result["cache_check"]["max_abs_difference"] <= 1e-2
    assert result["cache_check"]["same_classes"] is True
