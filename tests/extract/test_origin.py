"""Claims of losa.extract.origin: what was extracted from pieces of files is found again."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from losa.errors import InputError, ResourceError, UsageError
from losa.extract.extend import extend
from losa.extract.origin import find_again
from losa.extract.recompute import RecomputeRequest, recompute_rows
from losa.extract.run import extract
from losa.store import open_store
from tests.extract.picture_folder import tiny_config
from tests.extract.shards import labelled_shard, png, write_shard
from tests.extract.test_idx import write_pair

ROWS = 8


def recompute(store: Path, images: Path | None) -> dict[str, object]:
    return recompute_rows(RecomputeRequest(store, ROWS, images, "random", 0, "cpu"))


def write_shards(root: Path) -> Path:
    labelled_shard(root / "train-0.tar", {"a": 0, "b": 1, "c": 0})
    labelled_shard(root / "train-1.tar", {"a": 1, "d": 0})
    labelled_shard(root / "val-0.tar", {"a": 1, "x": 0, "y": 1})
    return root


def test_shards_are_extracted_extended_and_found_again(tmp_path: Path) -> None:
    root = write_shards(tmp_path / "shards")
    store = tmp_path / "s.zarr"
    config = tiny_config(tmp_path, store, dataset=f"wds:{root}/*.tar", split=("train",))
    extract(config)
    assert open_store(store).split("train").rows == 5
    extend(config.model_copy(update={"split": ("val",)}))
    assert open_store(store).split("val").rows == 3
    found = recompute(store, root)
    assert (found["rows"], found["failed"], found["not_compared"]) == (ROWS, 0, 0)


def test_features_of_a_member_are_those_of_the_same_image_in_a_file(tmp_path: Path) -> None:
    images = {f"{number}": png(40 * number, size=32) for number in range(4)}
    write_shard(tmp_path / "s/train-0.tar", {f"{k}.png": v for k, v in images.items()})
    (tmp_path / "plain").mkdir()
    for key, data in images.items():
        (tmp_path / f"plain/{key}.png").write_bytes(data)
    extract(tiny_config(tmp_path, tmp_path / "1.zarr", dataset=f"wds:{tmp_path}/s"))
    extract(tiny_config(tmp_path, tmp_path / "2.zarr", dataset=f"folder:{tmp_path}/plain"))
    one, two = (open_store(tmp_path / name).split("train") for name in ("1.zarr", "2.zarr"))
    rows = np.arange(4)
    planes = []
    for split in (one, two):
        out = np.empty((2, 4, 5, 192), split.raw_dtype)
        split.read_into(rows, (2, 11), out)
        planes.append(out)
    assert np.array_equal(planes[0], planes[1])
    assert np.isfinite(planes[0].astype(np.float32)).all()


def test_raw_pixels_are_found_again_below_their_data_folder(tmp_path: Path) -> None:
    write_pair(tmp_path / "data/MNIST/raw/train", [0, 1, 2, 3, 4])
    write_pair(tmp_path / "data/MNIST/raw/t10k", [5, 6, 7])
    store = tmp_path / "s.zarr"
    extract(tiny_config(tmp_path, store, dataset="mnist", data_dir=tmp_path / "data"))
    found = recompute(store, tmp_path / "data")
    assert (found["rows"], found["failed"]) == (ROWS, 0)


def test_a_saved_folder_is_found_again_wherever_it_lies(tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="the extra hub is not installed")
    from tests.extract.hub_rows import rows, saved

    folder = saved(rows(10), tmp_path / "set")
    store = tmp_path / "s.zarr"
    extract(tiny_config(tmp_path, store, dataset=f"hf:{folder}"))
    moved = folder.rename(tmp_path / "moved")
    found = recompute(store, moved)
    assert (found["rows"], found["failed"]) == (ROWS, 0)


def test_a_saved_folder_is_found_again_by_the_column_whose_labels_were_meant(
    tmp_path: Path,
) -> None:
    pytest.importorskip("datasets", reason="the extra hub is not installed")
    from tests.extract.hub_rows import rows, saved

    table = rows(10).add_column("other", list(range(10))).rename_column("label", "fine")
    folder = saved(table, tmp_path / "set")
    store = tmp_path / "s.zarr"
    extract(tiny_config(tmp_path, store, dataset=f"hf:{folder}?label=other"))
    assert len(open_store(store).plan.classes) == 10
    assert recompute(store, folder.rename(tmp_path / "moved"))["failed"] == 0


def test_shards_of_several_folders_are_found_again_below_the_folder_they_share(
    tmp_path: Path,
) -> None:
    for folder in ("one/train", "two.tar/train"):
        labelled_shard(tmp_path / f"all/deep/{folder}-0.tar", {"a": 0, "b": 1})
        labelled_shard(tmp_path / f"all/deep/{folder}-1.tar", {"a": 1, "b": 0})
    parts = [f"{tmp_path}/all/deep/{folder}/train-{{0..1}}.tar" for folder in ("one", "two.tar")]
    store = tmp_path / "s.zarr"
    extract(tiny_config(tmp_path, store, dataset=f"wds:{parts[0]}::{parts[1]}"))
    (tmp_path / "all").rename(tmp_path / "moved")
    for folder in ("moved/deep", "moved"):
        found = recompute(store, tmp_path / folder)
        assert (found["rows"], found["failed"], found["not_compared"]) == (ROWS, 0, 0)
    (tmp_path / "moved/deep/one/train-1.tar").unlink()
    found = recompute(store, tmp_path / "moved")
    assert (found["rows"], found["failed"], found["not_compared"]) == (ROWS, 2, 2)
    with pytest.raises(UsageError, match=r"--images: .*/one holds none .such as .*train-\d\.tar"):
        recompute(store, tmp_path / "moved/deep/one")
    shutil.copytree(tmp_path / "moved/deep", tmp_path / "moved/again")
    with pytest.raises(UsageError, match=r"holds the shards of .* in 2 folders"):
        recompute(store, tmp_path / "moved")


def test_a_shard_that_is_there_and_damaged_is_no_mistake_of_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_shards(tmp_path / "shards")
    store = tmp_path / "s.zarr"
    extract(tiny_config(tmp_path, store, dataset=f"wds:{root}"))
    (root / "train-0.tar").write_bytes(b"no tar file at all")
    monkeypatch.chdir(tmp_path)
    for images in (None, root):
        with pytest.raises(InputError, match=r"train-0\.tar: ") as caught:
            recompute(store, images)
        assert caught.value.exit_code == 3


def test_a_network_that_lacks_keeps_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_shards(tmp_path / "shards")
    store = tmp_path / "s.zarr"
    extract(tiny_config(tmp_path, store, dataset=f"wds:{root}"))
    plan = replace(open_store(store).plan, dataset="wds:http://127.0.0.1:9/train-0.tar")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ResourceError, match="cannot be fetched") as caught:
        find_again(plan, None, [])
    assert caught.value.exit_code == 6


def test_shards_that_are_not_found_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_shards(tmp_path / "shards")
    store = tmp_path / "s.zarr"
    extract(tiny_config(tmp_path, store, dataset=f"wds:{root}"))
    plan = open_store(store).plan
    paths = ["train-0.tar/a.png", "val-0.tar/x.png"]
    found = find_again(plan, root, paths)
    assert set(paths) <= set(found.pieces)
    assert found.pieces == find_again(plan, tmp_path, paths).pieces
    monkeypatch.chdir(tmp_path / "s.zarr")
    with pytest.raises(UsageError, match=r"--images: is needed: 'wds:shards' .*its shards, lie"):
        find_again(plan, None, paths)
