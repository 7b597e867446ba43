from __future__ import annotations

import json
from pathlib import Path

import pytest

from losa.errors import InputError, UsageError
from losa.extract.inat import load_inat
from tests.extract.inat_fixture import CATEGORIES, write_inat2018


@pytest.mark.parametrize("below", ["", "inat2018"])
def test_the_release_is_found_in_the_folder_or_below_its_name(tmp_path: Path, below: str) -> None:
    root = write_inat2018(tmp_path / below)
    listing = load_inat("inat2018", tmp_path, None)
    assert listing.root == root
    assert {split: len(samples) for split, samples in listing.splits.items()} == {
        "train": 2,
        "val": 2,
    }
    for samples in listing.splits.values():
        assert [sample.label for sample in samples] == [0, 1]
        for sample, category in zip(samples, CATEGORIES, strict=True):
            assert sample.key == sample.path
            assert sample.path.startswith(f"train_val2018/{category['supercategory']}/")
            assert (root / sample.path).is_file()


def test_classes_are_the_names_released_later(tmp_path: Path) -> None:
    root = write_inat2018(tmp_path)
    assert load_inat("inat2018", root, None).classes == ("Lumbricus terrestris", "Quercus robur")
    (root / "categories.json").unlink()
    assert load_inat("inat2018", root, None).classes == ("0", "7477")


def test_labels_do_not_depend_on_the_splits_asked_for(tmp_path: Path) -> None:
    root = write_inat2018(tmp_path)
    both = load_inat("inat2018", root, None)
    alone = load_inat("inat2018", root, ("val",))
    assert alone.splits == {"val": both.splits["val"]}
    assert alone.classes == both.classes


def test_2021_takes_the_mini_training_set_where_the_full_one_is_absent(tmp_path: Path) -> None:
    category = {"id": 0, "name": "Lumbricus terrestris", "image_dir_name": "00000_Animalia"}
    for split in ("train_mini", "val"):
        path = f"{split}/00000_Animalia/{split}.jpg"
        (tmp_path / path).parent.mkdir(parents=True)
        listing = {
            "images": [{"id": 1, "file_name": path, "latitude": float("nan")}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 0}],
            "categories": [category],
        }
        (tmp_path / f"{split}.json").write_text(json.dumps(listing))
    listed = load_inat("inat2021", tmp_path, None)
    assert listed.splits["train"][0].path == "train_mini/00000_Animalia/train_mini.jpg"
    assert listed.splits["val"][0].label == 0


def test_a_missing_file_is_named_with_where_to_get_it(tmp_path: Path) -> None:
    source = "https://github.com/visipedia/inat_comp/tree/master/2018"
    with pytest.raises(InputError, match=r"train2018.json: is missing") as caught:
        load_inat("inat2018", tmp_path, None)
    assert source in str(caught.value)
    assert caught.value.exit_code == 3

    write_inat2018(tmp_path)
    (tmp_path / "val2018.json").unlink()
    with pytest.raises(InputError, match=r"val2018.json: is missing.*--split train") as caught:
        load_inat("inat2018", tmp_path, None)
    assert source in str(caught.value)
    assert len(load_inat("inat2018", tmp_path, ("train",)).splits["train"]) == 2

    (tmp_path / "train_val2018").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="train_val2018: is missing: it holds the images"):
        load_inat("inat2018", tmp_path, ("train",))


def test_a_split_without_labels_is_a_usage_error(tmp_path: Path) -> None:
    write_inat2018(tmp_path)
    with pytest.raises(UsageError, match="--split: inat2018 has no labelled 'test'"):
        load_inat("inat2018", tmp_path, ("test",))


@pytest.mark.parametrize("name", ["val2018.json", "categories.json"])
def test_files_of_two_releases_are_not_mixed(tmp_path: Path, name: str) -> None:
    write_inat2018(tmp_path)
    value = json.loads((tmp_path / name).read_text())
    (value if isinstance(value, list) else value["categories"]).append({"id": 8, "name": "new"})
    (tmp_path / name).write_text(json.dumps(value))
    with pytest.raises(InputError, match=f"{name}: lists other categories than train2018.json"):
        load_inat("inat2018", tmp_path, None)


@pytest.mark.parametrize(("split", "other"), [("train", "images[0]"), ("val", "train2018.json")])
def test_an_image_that_is_listed_twice_is_refused(tmp_path: Path, split: str, other: str) -> None:
    root = write_inat2018(tmp_path)
    train = json.loads((root / "train2018.json").read_text())
    listing = json.loads((root / f"{split}2018.json").read_text())
    listing["images"][1]["file_name"] = train["images"][0]["file_name"]
    (root / f"{split}2018.json").write_text(json.dumps(listing))
    with pytest.raises(InputError, match="name the same sample") as caught:
        load_inat("inat2018", root, None)
    assert f"{split}2018.json images[1]" in str(caught.value)
    assert other in str(caught.value)
