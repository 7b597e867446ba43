"""Claims of losa.store.strays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from losa.errors import ResourceError
from losa.store import layout
from losa.store.strays import find_strays
from losa.store.ways import Ways
from tests.store.build import begin_store, small_plan, small_store


def strays(path: Path, *, is_sealed: bool = True) -> dict[str, str]:
    found = find_strays(Ways(path), small_plan(dtype="int8"), is_sealed=is_sealed)
    return {problem.path: problem.what for problem in found if problem.kind == "stray"}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return small_store(tmp_path / "s.zarr", small_plan(dtype="int8"))


def test_every_file_of_a_store_belongs(store: Path, tmp_path: Path) -> None:
    assert strays(store) == {}
    begin_store(tmp_path / "t.zarr", small_plan(dtype="int8"))
    assert strays(tmp_path / "t.zarr", is_sealed=False) == {}


@pytest.mark.parametrize(
    "name",
    [
        "train/tokens/tap01/c.3.0.0",
        "train/tokens/tap01/c.01.0.0",
        "train/tokens/tap01/c.1.0.1",
        f"train/tokens/tap01/c.{'9' * 200}.0.0",
        "train/tokens/tap01/c",
        "train/scale/tap01/c.0.0.0",
        ".losa/commits/train/0.json",
        ".losa/commits/train/000003.json",
        "x",
    ],
)
def test_a_file_that_the_plan_does_not_know_is_a_stray(store: Path, name: str) -> None:
    (store / name).write_text("a")
    assert strays(store) == {name: "does not belong to the store"}


@pytest.mark.parametrize(
    "name",
    [
        layout.UNSYNCED_OBJECT,
        f"{layout.TMP_FOLDER}/1-1-x-0",
        layout.claim_object("train", 0),
        layout.inherited_object("train", 0),
    ],
)
def test_what_writers_need_belongs_into_a_store_that_is_not_sealed(store: Path, name: str) -> None:
    (store / name).parent.mkdir(parents=True, exist_ok=True)
    (store / name).write_text("a")
    assert strays(store, is_sealed=False) == {}
    assert list(strays(store)) == [name]


def test_links_and_files_in_place_of_folders_are_strays(store: Path, tmp_path: Path) -> None:
    (store / "train").rename(tmp_path / "train")
    (store / "train").symlink_to(tmp_path / "train")
    (store / "val").rename(tmp_path / "val")
    (store / "val").write_text("a")
    (store / "other").symlink_to(tmp_path)
    assert strays(store) == {
        "train": "is a symbolic link",
        "val": "is not a folder",
        "other": "is a symbolic link",
    }


def test_a_folder_that_cannot_be_listed_is_a_resource_error(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def scandir(path: str) -> object:
        if path.endswith("calib"):
            raise PermissionError(13, os.strerror(13))
        if path.endswith("val"):
            raise FileNotFoundError(2, os.strerror(2))  # swept by somebody just now
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(ResourceError, match="calib: permission denied"):
        strays(store)
