"""Claims of losa.extract.recompute."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from losa.errors import MismatchError, StoreError, UsageError
from losa.extract.recompute import (
    TOLERANCES,
    RecomputeRequest,
    choose_rows,
    recompute_rows,
    relative_l2,
    tolerance_of,
)
from losa.extract.run import extract
from losa.extract.vit import ViTBackbone
from losa.features import StoreDtype
from losa.store import open_store
from losa.store.plan import Numerics
from tests.extract.picture_folder import picture_folder, tiny_config
from tests.store.build import small_plan

COUNTS = {"train": 3, "val": 1}
ROWS = 12


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("pictures"), COUNTS)


@pytest.fixture(scope="module")
def store(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "s.zarr"
    extract(tiny_config(pictures, path))
    return path


def request(store: Path, images: Path | None, rows: int = ROWS) -> RecomputeRequest:
    return RecomputeRequest(store, rows, images, "random", 0, "cpu")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_the_same_files_and_weights_give_what_is_stored(
    pictures: Path, tmp_path: Path, dtype: StoreDtype
) -> None:
    extract(tiny_config(pictures, tmp_path / "s.zarr", store_dtype=dtype))
    found = recompute_rows(request(tmp_path / "s.zarr", pictures))
    assert (found["rows"], found["failed"], found["within"]) == (ROWS, 0, True)
    assert 0 <= found["worst"] < found["tolerance"] == TOLERANCES[dtype]
    assert set(found["taps"]) == {"2", "11"}
    assert found["worst"] == max(tap["worst"] for tap in found["taps"].values())


@pytest.mark.parametrize("policy", ["crop-flip", "randaug"])
def test_views_are_drawn_again_and_give_what_is_stored(
    pictures: Path, tmp_path: Path, policy: str
) -> None:
    extract(tiny_config(pictures, tmp_path / "s.zarr", views=3, augment=policy))
    found = recompute_rows(request(tmp_path / "s.zarr", pictures, rows=99))
    assert (found["rows"], found["failed"]) == (30, 0)
    # Were they drawn anew, or the clean pictures, no row but those would be within.
    assert found["worst"] < found["tolerance"]


def test_a_view_that_is_not_what_is_stored_is_named_with_its_number(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(tiny_config(pictures, tmp_path / "s.zarr", views=2))
    monkeypatch.setattr("losa.extract.augment.view_seed", lambda *_: 5)
    found = recompute_rows(request(tmp_path / "s.zarr", pictures, rows=99))
    assert found["failed"] == 9
    assert {failure["view"] for failure in found["failures"]} == {1}


def test_a_data_set_that_lies_where_its_name_says_needs_no_folder(
    store: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures.parent)
    assert recompute_rows(request(store, None, rows=1))["within"]


def test_files_that_are_not_found_are_asked_for(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="--images: is needed: 'folder:pictures"):
        recompute_rows(request(store, None))


def test_other_weights_are_refused_by_name(store: Path, pictures: Path, tmp_path: Path) -> None:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    save_file(model.state_dict(), tmp_path / "other.safetensors")
    other = replace(request(store, pictures), weights=str(tmp_path / "other.safetensors"))
    with pytest.raises(MismatchError, match=r"not the store's .*weights: ") as caught:
        recompute_rows(other)
    assert caught.value.exit_code == 5


@pytest.fixture
def copy(pictures: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pictures, tmp_path / "copy"))


def test_a_row_whose_picture_is_another_now_is_named(store: Path, copy: Path) -> None:
    Image.new("RGB", (32, 32), (255, 255, 0)).save(copy / "train/red/001.png")
    found = recompute_rows(request(store, copy))
    assert (found["failed"], found["not_compared"], found["within"]) == (1, 0, False)
    assert found["worst_row"]["path"] == "train/red/001.png"
    assert found["worst_row"] == found["failures"][0]
    assert found["worst_row"]["relative_l2"] == found["worst"] > found["tolerance"]
    row = open_store(store).split("train")
    assert row.samples[row.source_index[found["worst_row"]["row"]]].path == "train/red/001.png"


def test_a_picture_that_is_gone_fails_with_its_reason(store: Path, copy: Path) -> None:
    (copy / "val/blue/000.png").unlink()
    found = recompute_rows(request(store, copy))
    assert (found["rows"], found["failed"], found["within"]) == (ROWS, 1, False)
    (failure,) = found["failures"]
    assert (failure["path"], failure["reason"]) == ("val/blue/000.png", "is missing")
    assert found["not_compared"] == 1
    assert found["worst"] < found["tolerance"]
    shutil.rmtree(copy)
    found = recompute_rows(request(store, copy, rows=1))
    assert found["worst_row"]["reason"] == "is missing"
    assert (found["failed"], found["not_compared"], found["worst"]) == (1, 1, None)


@pytest.mark.parametrize(
    ("whose", "reason"),
    [
        ("computed", "its features do not fit float16 now"),
        ("stored", "what is stored of it is not finite"),
    ],
)
def test_features_that_are_not_finite_fail_whosever_they_are(
    store: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, whose: str, reason: str
) -> None:
    monkeypatch.setattr("losa.extract.recompute.decode", lambda *given, **_: given[0] / 0)
    if whose == "computed":
        # Both are: what cannot be computed is said first.
        monkeypatch.setattr(ViTBackbone, "__call__", nothing_finite)
    found = recompute_rows(request(store, pictures, rows=2))
    assert [item["reason"] for item in found["failures"]] == [reason] * 2
    assert found["taps"] == {}


def nothing_finite(backbone: ViTBackbone, pixels: torch.Tensor) -> list[torch.Tensor]:
    taps, *shape = backbone.spec.shape
    return list(torch.full((taps, len(pixels), *shape), torch.nan))


def test_an_unsealed_store_is_refused(store: Path, pictures: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(store, tmp_path / "s.zarr"))
    (path / ".losa/sealed.json").unlink()
    with pytest.raises(StoreError, match="is not sealed"):
        recompute_rows(request(path, pictures))


def test_a_sample_outside_the_folder_is_not_read(
    store: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = choose_rows(open_store(store), 1, 0)
    for path in ("../secret.png", "/etc/passwd"):
        strange = [replace(rows[0], sample=replace(rows[0].sample, path=path))]
        monkeypatch.setattr("losa.extract.recompute.choose_rows", lambda *_, rows=strange: rows)
        with pytest.raises(UsageError, match="leads out of the folder"):
            recompute_rows(request(store, pictures))


def test_rows_are_drawn_by_seed_from_those_of_all_splits_that_hold_features(
    pictures: Path, tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(pictures, tmp_path / "broken"))
    (broken / "train/green/001.png").write_bytes(b"no picture")
    extract(tiny_config(broken, tmp_path / "s.zarr", on_error="skip", max_skip=1.0))
    store = open_store(tmp_path / "s.zarr")
    everything = choose_rows(store, 100, 0)
    paths = {item.sample.path for item in everything}
    listed = {file.relative_to(broken).as_posix() for file in broken.rglob("*.png")}
    assert paths == listed - {"train/green/001.png"}
    for item in everything:
        reader = store.split(item.split)
        assert reader.samples[reader.source_index[item.row]] == item.sample
    assert len(everything) == len(paths)
    assert choose_rows(store, 4, 1) == choose_rows(store, 4, 1)
    assert choose_rows(store, 4, 1) != choose_rows(store, 4, 2)


def test_distances_are_those_of_the_equation() -> None:
    draw = np.random.default_rng(0)
    found, stored = draw.normal(size=(2, 2, 3, 4, 5)).astype(np.float32)
    want = [
        [
            np.linalg.norm(found[tap, row] - stored[tap, row]) / np.linalg.norm(stored[tap, row])
            for tap in range(2)
        ]
        for row in range(3)
    ]
    ours = relative_l2(torch.from_numpy(found), torch.from_numpy(stored))
    np.testing.assert_allclose(ours, want, rtol=1e-6)


def test_autocast_is_no_finer_than_its_dtype() -> None:
    plan = small_plan(dtype="float32")
    assert tolerance_of(plan) == TOLERANCES["float32"]
    plan = replace(plan, numerics=Numerics("cuda", "bfloat16", 4))
    assert tolerance_of(plan) == TOLERANCES["bfloat16"]
