"""Claims of losa.extract.torchsets: layouts as torchvision's own classes read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torchvision

from losa.errors import InputError, UsageError
from losa.extract.datasets import load_dataset
from losa.extract.samples import Dataset
from losa.extract.torchsets import REFUSED, SETS
from tests.extract.shards import png


def write(root: Path, files: dict[str, str]) -> Path:
    """Text files, and images where a name has an image's extension."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text.encode() if text else png(0))
    return root


def listed(dataset: Dataset, split: str) -> list[tuple[str, str]]:
    """Path and class of every sample."""
    samples = dataset.splits[split]
    return sorted((str(dataset.root / item.path), dataset.classes[item.label]) for item in samples)


def theirs(paths: list[Any], labels: list[int], classes: list[str]) -> list[tuple[str, str]]:
    """The same of a data set of torchvision."""
    return sorted((str(path), classes[label]) for path, label in zip(paths, labels, strict=True))


def test_food101_is_as_torchvision_reads_it(tmp_path: Path) -> None:
    meta = {
        "train": {"pie": ["pie/1", "pie/2"], "cake": ["cake/3"]},
        "test": {"pie": ["pie/4"], "cake": []},
    }
    lists = {f"food-101/meta/{split}.json": json.dumps(value) for split, value in meta.items()}
    images = {f"food-101/images/{name}.jpg": "" for name in ("pie/1", "pie/2", "cake/3", "pie/4")}
    write(tmp_path, {**lists, **images})
    dataset = load_dataset("food101", tmp_path)
    for split in ("train", "test"):
        other = torchvision.datasets.Food101(tmp_path, split=split)
        assert listed(dataset, split) == theirs(other._image_files, other._labels, other.classes)


def test_dtd_is_as_torchvision_reads_it(tmp_path: Path) -> None:
    files = {
        f"dtd/dtd/labels/{split}1.txt": f"dotted/{split}.jpg\nknitted/{split}.jpg\n"
        for split in ("train", "val", "test")
    }
    write(tmp_path, {**files, "dtd/dtd/images/dotted/train.jpg": ""})
    dataset = load_dataset("torchvision:dtd", tmp_path)
    for split in ("train", "val", "test"):
        other = torchvision.datasets.DTD(tmp_path, split=split)
        assert listed(dataset, split) == theirs(other._image_files, other._labels, other.classes)


def test_pets_are_as_torchvision_reads_them(tmp_path: Path) -> None:
    lines = {
        "trainval": "Great_dane_10 1 2 1\nsphynx_2 2 1 1\n",
        "test": "sphynx_9 2 1 1\nGreat_dane_7 1 2 1\n",
    }
    write(
        tmp_path / "oxford-iiit-pet",
        {f"annotations/{name}.txt": text for name, text in lines.items()},
    )
    write(tmp_path / "oxford-iiit-pet", {"images/sphynx_2.jpg": ""})
    dataset = load_dataset("oxford_iiit_pet", tmp_path)
    for split, name in (("train", "trainval"), ("test", "test")):
        other = torchvision.datasets.OxfordIIITPet(tmp_path, split=name)
        found = [(path, label.replace("_", " ").title()) for path, label in listed(dataset, split)]
        assert found == theirs(other._images, other._labels, other.classes)


def test_aircraft_is_as_torchvision_reads_it(tmp_path: Path) -> None:
    root = tmp_path / "fgvc-aircraft-2013b"
    lists = {
        f"data/images_variant_{split}.txt": f"00{n} 737-200\n01{n} DHC 8\n"
        for n, split in enumerate(("train", "val", "test"))
    }
    write(root, {**lists, "data/variants.txt": "737-200\nDHC 8\n", "data/images/000.jpg": ""})
    dataset = load_dataset("fgvc_aircraft", tmp_path)
    for split in ("train", "val", "test"):
        other = torchvision.datasets.FGVCAircraft(tmp_path, split=split)
        assert listed(dataset, split) == theirs(other._image_files, other._labels, other.classes)


def test_traffic_signs_are_as_torchvision_reads_them(tmp_path: Path) -> None:
    root = tmp_path / "gtsrb"
    train = {f"GTSRB/Training/{label:05d}/{n}.ppm": "" for label in (0, 7) for n in range(2)}
    table = "Filename;Width;ClassId\n0.ppm;5;7\n1.ppm;5;0\n"
    write(root, {**train, "GT-final_test.csv": table, "GTSRB/Final_Test/Images/0.ppm": ""})
    dataset = load_dataset("gtsrb", tmp_path)
    assert dataset.classes == ("00000", "00007")
    for split in ("train", "test"):
        other = torchvision.datasets.GTSRB(tmp_path, split=split)
        # Torchvision numbers the folders of train, and takes the numbers of test as they are.
        known = ["00000", "00007"] if split == "train" else [f"{n:05d}" for n in range(43)]
        paths, labels = zip(*other._samples, strict=True)
        assert listed(dataset, split) == theirs(list(paths), list(labels), known)


def test_scenes_are_as_torchvision_reads_them(tmp_path: Path) -> None:
    names = ("a/abbey", "a/apartment_building/outdoor", "b/bar")
    images = {f"{name}/sun_{number}.jpg": "" for name in names for number in range(5)}
    write(tmp_path / "SUN397", {**images, "ClassName.txt": "".join(f"/{name}\n" for name in names)})
    dataset = load_dataset("sun397", tmp_path)
    other = torchvision.datasets.SUN397(tmp_path)
    assert listed(dataset, "train") + listed(dataset, "val") != []
    found = sorted(listed(dataset, "train") + listed(dataset, "val"))
    assert found == theirs(other._image_files, other._labels, other.classes)
    assert len(dataset.splits["val"]) == 3


def test_faces_have_the_attributes_that_are_marked(tmp_path: Path) -> None:
    table = "3\nBald Young Smiling\n1.jpg -1  1  1\n2.jpg  1 -1 -1\n3.jpg -1 -1 -1\n"
    write(
        tmp_path / "celeba",
        {"list_attr_celeba.txt": table, "list_eval_partition.txt": "1.jpg 0\n2.jpg 1\n3.jpg 2\n"},
    )
    dataset = load_dataset("celeba", tmp_path)
    assert dataset.classes == ("Bald", "Young", "Smiling")
    assert {name: listed[0].labels for name, listed in dataset.splits.items()} == {
        "train": (1, 2),
        "val": (0,),
        "test": (),
    }


@pytest.mark.parametrize(
    ("name", "files", "classes"),
    [
        ("imagenet", ["imagenet/train/n01/a.JPEG", "imagenet/val/n02/b.JPEG"], ("n01", "n02")),
        (
            "imagenette",
            ["imagenette2-320/train/n01/a.JPEG", "imagenette2-320/val/n01/b.JPEG"],
            ("n01",),
        ),
        ("country211", ["country211/train/AD/a.jpg", "country211/valid/AE/b.jpg"], ("AD", "AE")),
        ("rendered_sst2", ["rendered-sst2/train/negative/a.png"], ("negative",)),
        ("eurosat", ["eurosat/2750/River/1.jpg", "eurosat/2750/Forest/2.jpg"], ("Forest", "River")),
        (
            "caltech101",
            [
                f"caltech101/101_ObjectCategories/{name}/1.jpg"
                for name in ("ant", "BACKGROUND_Google")
            ],
            ("ant",),
        ),
        ("caltech256", ["caltech256/256_ObjectCategories/001.ak47/1.jpg"], ("001.ak47",)),
    ],
)
def test_data_sets_of_folders_are_read_from_where_they_are(
    tmp_path: Path, name: str, files: list[str], classes: tuple[str, ...]
) -> None:
    write(tmp_path, dict.fromkeys(files, ""))
    dataset = load_dataset(name, tmp_path)
    assert (dataset.name, dataset.classes) == (name, classes)
    kept = [file for file in files if "BACKGROUND" not in file]
    paths = [str(dataset.media(item).path) for listed in dataset.splits.values() for item in listed]
    assert sorted(paths) == sorted(str(tmp_path / file) for file in kept)


@pytest.mark.parametrize("name", sorted(REFUSED))
@pytest.mark.parametrize("form", ["{}", "torchvision:{}"])
def test_pickles_and_matlab_files_are_refused_in_one_line(
    tmp_path: Path, name: str, form: str
) -> None:
    with pytest.raises(UsageError, match=r"--dataset: .*(pickle|MATLAB).*use hf:"):
        load_dataset(form.format(name), tmp_path)


@pytest.mark.parametrize("name", sorted(SETS))
def test_a_known_data_set_that_is_missing_says_where_it_should_be(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(
        InputError, match=f"{SETS[name].folders[0]}: is missing; unpack {name} there"
    ):
        load_dataset(name, tmp_path)


def test_a_misspelt_name_is_set_right(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean food101"):
        load_dataset("torchvision:food11", tmp_path)


def test_a_list_that_climbs_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"dtd/dtd/labels/train1.txt": "../../x.jpg\n"})
    with pytest.raises(InputError, match=r"train1.txt line 1: path 'images/../../x.jpg'"):
        load_dataset("dtd", tmp_path)


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("celeba", {"list_attr_celeba.txt": "1", "list_eval_partition.txt": "one"}),
        ("gtsrb", {"GTSRB/Training/readme.png": "", "GT-final_test.csv": "Filename;ClassId"}),
    ],
)
def test_a_damaged_listing_is_one_line(tmp_path: Path, name: str, files: dict[str, str]) -> None:
    folder = SETS[name].folders[0]
    write(tmp_path / folder, files)
    with pytest.raises(InputError, match=f"is not laid out as {name} is"):
        load_dataset(name, tmp_path)
