"""Claims of losa.extract.webdataset."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from losa.errors import InputError, UsageError
from losa.extract.datasets import load_dataset
from losa.extract.images import load_pixels
from losa.extract.transforms import Preprocessing
from losa.extract.webdataset import expand_braces
from losa.features import Sample
from tests.extract.shards import labelled_shard, png, write_shard

HALF = (0.5, 0.5, 0.5)
PLAIN = Preprocessing((8, 8), 1.0, "center", "bicubic", HALF, HALF)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a.tar", ("a.tar",)),
        ("a-{08..11}.tar", ("a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar")),
        ("{a,b}-{1..2}", ("a-1", "a-2", "b-1", "b-2")),
        ("{5..5}", ("5",)),
    ],
)
def test_braces_stand_for_ranges_and_lists(text: str, names: tuple[str, ...]) -> None:
    assert expand_braces(text) == names


@pytest.mark.parametrize("text", ["{1..", "a}", "{2..1}", "{0..999999999}", "{1..999}{1..999}"])
def test_a_pattern_that_stands_for_nothing_or_too_much_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--dataset: .*write train-"):
        expand_braces(text)


def test_every_listed_sample_is_one_row_of_the_split_its_shard_names(tmp_path: Path) -> None:
    labelled_shard(tmp_path / "train-000001.tar", {"c": 0})
    labelled_shard(tmp_path / "train-000000.tar", {"b": 10, "a": 9})
    labelled_shard(tmp_path / "val-000000.tar", {"a": 9})
    dataset = load_dataset(f"wds:{tmp_path}", Path("data"))
    assert dataset.name == f"wds:{tmp_path.name}"
    assert dataset.classes == ("0", "9", "10")
    assert dataset.splits == {
        "train": (
            Sample("train-000000/b", "train-000000.tar/b.png", 2),
            Sample("train-000000/a", "train-000000.tar/a.png", 1),
            Sample("train-000001/c", "train-000001.tar/c.png", 0),
        ),
        "val": (Sample("val-000000/a", "val-000000.tar/a.png", 1),),
    }
    shades = [
        load_pixels(dataset.media(sample), PLAIN)[0, 0, 0] for sample in dataset.splits["train"]
    ]
    assert shades == [0, 20, 0]


@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("{}/train-{{000..001}}.tar", "wds:train-{000..001}.tar"),
        ("{}/train-*.tar", "wds:train-*.tar"),
        ("{0}/train-001.tar::{0}/train-000.tar", "wds:train-001.tar::train-000.tar"),
    ],
)
def test_a_pattern_a_glob_and_a_list_of_paths_name_the_same_samples(
    tmp_path: Path, form: str, name: str
) -> None:
    for number in range(2):
        labelled_shard(tmp_path / f"train-{number:03d}.tar", {f"{number}": number})
    dataset = load_dataset("wds:" + form.format(tmp_path), Path("data"))
    assert dataset.name == name
    assert [sample.key for sample in dataset.splits["train"]] == ["train-000/0", "train-001/1"]


def test_the_listing_does_not_depend_on_where_the_shards_lie(tmp_path: Path) -> None:
    labelled_shard(tmp_path / "one/set/train/0.tar", {"a": 0, "b": 1})
    labelled_shard(tmp_path / "one/set/val/0.tar", {"a": 0})
    shutil.copytree(tmp_path / "one/set", tmp_path / "two/deeper/set")
    first = load_dataset(f"wds:{tmp_path}/one/set", Path("data"))
    again = load_dataset(f"wds:{tmp_path}/two/deeper/set", Path("data"))
    assert (first.name, first.splits, first.classes) == (again.name, again.splits, again.classes)
    assert [sample.path for sample in first.splits["val"]] == ["val/0.tar/a.png"]


def test_shards_of_one_split_in_its_folder_are_that_split(tmp_path: Path) -> None:
    labelled_shard(tmp_path / "validation/0.tar", {"a": 0})
    assert list(load_dataset(f"wds:{tmp_path}/validation", Path("data")).splits) == ["val"]


def test_shards_that_name_no_split_are_parted_by_the_seed(tmp_path: Path) -> None:
    labelled_shard(tmp_path / "x" / "0.tar", {f"{number}": number % 2 for number in range(20)})
    dataset = load_dataset(f"wds:{tmp_path}/x/0.tar", Path("data"))
    assert {name: len(samples) for name, samples in dataset.splits.items()} == {
        "train": 16,
        "val": 4,
    }


def test_shards_without_labels_are_all_train(tmp_path: Path) -> None:
    write_shard(tmp_path / "0.tar", {f"{number}.png": png(0) for number in range(10)})
    dataset = load_dataset(f"wds:{tmp_path}/0.tar", Path("data"))
    assert (list(dataset.splits), dataset.classes) == (["train"], ())


@pytest.mark.parametrize(
    ("names", "text", "what"),
    [
        (["train-0.tar", "0.tar"], "{}", "0.tar: names no split, and other shards do"),
        (["0.txt"], "{}", "is missing, or holds no tar files"),
        ([], "{}/0.tar", "0.tar: is missing"),
        (["0.tar"], "{}/{{0..1}}.tar", "1.tar: is missing"),
        (["0.tar"], "{}/*.tgz", "is missing"),
    ],
)
def test_shards_that_do_not_fit_are_refused(
    tmp_path: Path, names: list[str], text: str, what: str
) -> None:
    for name in names:
        labelled_shard(tmp_path / "x" / name, {"a": 0})
    with pytest.raises(InputError, match=what):
        load_dataset("wds:" + text.format(tmp_path / "x"), Path("data"))


def test_a_shard_named_twice_is_refused(tmp_path: Path) -> None:
    shard = labelled_shard(tmp_path / "0.tar", {"a": 0})
    with pytest.raises(UsageError, match="names a shard twice"):
        load_dataset(f"wds:{shard}::{shard}", Path("data"))


def test_a_sample_without_a_label_among_others_is_named(tmp_path: Path) -> None:
    write_shard(tmp_path / "0.tar", {"a.png": png(0), "a.cls": b"1", "b.png": png(0)})
    with pytest.raises(InputError, match=r"0.tar: b.png has no label, and 0.tar: a.png has one"):
        load_dataset(f"wds:{tmp_path}/0.tar", Path("data"))
