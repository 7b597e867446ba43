"""Claims of losa.extract.vtab."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from losa.adapt.partition import partition
from losa.errors import InputError, UsageError
from losa.extract.datasets import load_dataset
from losa.extract.run import extract
from losa.extract.vtab import TASKS
from losa.features import Sample
from losa.store import open_store
from tests.extract.picture_folder import tiny_config
from tests.extract.shards import png


def write_task(root: Path, **lists: str) -> Path:
    """The lists of a task; each is given as its text."""
    root.mkdir(parents=True)
    usual = {
        "train800": "images/train800/0.jpg 3\nimages/train800/1.jpg 0\n",
        "val200": "images/val200/0.jpg 2\n",
        "test": "images/test/a b.jpg 7\n",
    }
    usual["train800val200"] = usual["train800"] + usual["val200"]
    for name, text in {**usual, **lists}.items():
        (root / f"{name}.txt").write_text(text)
    return root


def test_the_19_tasks_are_known_with_their_numbers_of_classes() -> None:
    natural = [100, 102, 47, 102, 37, 10, 397]
    specialised = [2, 10, 45, 5]
    structured = [8, 6, 6, 4, 16, 16, 18, 9]
    assert list(TASKS.values()) == natural + specialised + structured


@pytest.mark.parametrize("folder", ["vtab/clevr_count", "vtab-1k/clevr_count", "clevr_count"])
def test_a_task_is_train_val_and_test(tmp_path: Path, folder: str) -> None:
    write_task(tmp_path / folder)
    dataset = load_dataset("vtab/clevr_count", tmp_path)
    assert dataset.name == "vtab/clevr_count"
    assert dataset.root == tmp_path / folder
    assert dataset.classes == tuple("01234567")
    assert dataset.splits == {
        "train": (
            Sample("images/train800/0.jpg", "images/train800/0.jpg", 3),
            Sample("images/train800/1.jpg", "images/train800/1.jpg", 0),
        ),
        "val": (Sample("images/val200/0.jpg", "images/val200/0.jpg", 2),),
        "test": (Sample("images/test/a b.jpg", "images/test/a b.jpg", 7),),
    }


def test_the_thousand_are_a_train_and_nothing_is_left_to_choose_by(tmp_path: Path) -> None:
    write_task(tmp_path / "vtab/clevr_count")
    dataset = load_dataset("vtab/clevr_count:1000", tmp_path)
    assert dataset.name == "vtab/clevr_count:1000"
    assert [sample.label for sample in dataset.splits["train"]] == [3, 0, 2]
    assert [sample.label for sample in dataset.splits["test"]] == [7]
    assert len(dataset.splits) == 2
    assert dataset.classes == load_dataset("vtab/clevr_count", tmp_path).classes
    with pytest.raises(UsageError, match="clevr_count:1000 has no 'val'; use one of train, test"):
        load_dataset("vtab/clevr_count:1000", tmp_path, splits=("train", "val"))


def test_trainval_is_refused_with_the_name_under_which_it_is_trained_on(tmp_path: Path) -> None:
    write_task(tmp_path / "vtab/oxford_iiit_pet")
    with pytest.raises(UsageError, match=r"--split: .* are the train of") as caught:
        load_dataset("vtab/pets", tmp_path, splits=("trainval", "test"))
    name = str(caught.value).rpartition("--dataset ")[2]
    assert set(load_dataset(name, tmp_path).splits) == {"train", "test"}


def test_adapt_trains_on_a_part_of_the_thousand_and_reports_on_test(tmp_path: Path) -> None:
    root = tmp_path / "vtab/clevr_count"
    pictures = {f"{n}.png": n % 2 for n in range(20)}
    for number, name in enumerate(pictures):
        (root / "images").mkdir(parents=True, exist_ok=True)
        (root / "images" / name).write_bytes(png(12 * number, size=32))
    lines = [f"images/{name} {label}\n" for name, label in pictures.items()]
    (root / "train800val200.txt").write_text("".join(lines[:16]))
    (root / "test.txt").write_text("".join(lines[16:]))
    config = {"dataset": "vtab/clevr_count:1000", "data_dir": tmp_path}
    extract(tiny_config(tmp_path, tmp_path / "s.zarr", **config))
    parts = partition(open_store(tmp_path / "s.zarr"), val_fraction=0.1, seed=0)
    assert parts.test is not None
    assert parts.val is not None
    assert [len(part.rows) for part in (parts.train, parts.val, parts.test)] == [14, 2, 4]


def test_other_names_lead_to_the_same_task(tmp_path: Path) -> None:
    write_task(tmp_path / "vtab/cifar")
    assert load_dataset("vtab/cifar100", tmp_path).name == "vtab/cifar"
    write_task(tmp_path / "vtab/pets")
    assert load_dataset("vtab/pets", tmp_path).name == "vtab/oxford_iiit_pet"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("../secret.jpg 1\n", "train800.txt line 1: path '../secret.jpg'"),
        ("/etc/passwd 1\n", "train800.txt line 1: path '/etc/passwd'"),
        ("a.jpg 1\nb.jpg 8\n", "line 2: label '8' is none of 0..7"),
        ("a.jpg -1\n", "line 1: label '-1' is none of"),
        ("a.jpg\n", "line 1: label 'a.jpg' is none of"),
        ("a.jpg 1\na.jpg 1\n", "train800.txt line 2 and train800.txt line 1 name the same"),
        ("images/test/a b.jpg 1\n", "test.txt line 1 and train800.txt line 1 name the same"),
        ("\n", "lists no samples"),
    ],
)
def test_a_list_unfit_to_train_on_is_refused(tmp_path: Path, text: str, what: str) -> None:
    write_task(tmp_path / "vtab/clevr_count", train800=text)
    with pytest.raises(InputError, match=what):
        load_dataset("vtab/clevr_count", tmp_path)


def test_a_task_that_is_none_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="'imagenet' is no VTAB task; use one of cifar, caltech101"
    ):
        load_dataset("vtab/imagenet", tmp_path)
    with pytest.raises(UsageError, match="--split: vtab/dtd has no 'dev'"):
        load_dataset("vtab/dtd", tmp_path, splits=("dev",))


def test_a_task_that_is_missing_says_where_it_should_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"vtab/dtd: is missing.*unpack VTAB-1k"):
        load_dataset("vtab/dtd", tmp_path)


def test_lists_of_other_lengths_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    write_task(tmp_path / "vtab/clevr_count")
    load_dataset("vtab/clevr_count", tmp_path)
    assert "train800.txt has 2 samples, not 800" in caplog.text
