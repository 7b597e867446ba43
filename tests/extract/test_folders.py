"""Claims of losa.extract.folders; those of folders as data sets are in test_datasets."""

from __future__ import annotations

from pathlib import Path

import pytest

from losa.errors import InputError
from losa.extract.folders import files_below, list_folder
from losa.extract.samples import arranged
from tests.extract.picture_folder import touch


def test_pictures_alone_are_samples_without_labels(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "a.jpg", "notes.txt", ".hidden/x.png")
    dataset = arranged(list_folder(tmp_path, named=False), 0)
    assert [(item.path, item.label) for item in dataset.splits["train"]] == [
        ("a.jpg", -1),
        ("b.png", -1),
    ]
    assert (list(dataset.splits), dataset.classes) == (["train"], ())


def test_pictures_beside_a_folder_without_any_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "owls/readme.txt")
    with pytest.raises(InputError, match="holds no folders with images"):
        list_folder(tmp_path, named=False)


def test_a_preview_beside_the_classes_is_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "preview.png", "owl/1.png", "bat/2.png")
    assert [item.path for item in list_folder(tmp_path, named=False).lines] == [
        "bat/2.png",
        "owl/1.png",
    ]


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "a/x.txt", "a/.y.png")
    ignored: list[str] = []
    assert list(files_below(tmp_path, ignored)) == ["a/1.png"]
    assert sorted(ignored) == [".y.png", "x.txt"]


def test_folders_of_splits_without_classes_do_not_pass_for_classes(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.png", "val/b.png")
    with pytest.raises(InputError, match="'train', 'val' are names of splits"):
        list_folder(tmp_path, named=False)
