"""Claims of losa.extract.overwrite."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from losa.errors import StoreError
from losa.extract.extraction import ExtractEvent
from losa.extract.run import extract
from losa.store import open_store
from tests.extract.picture_folder import picture_folder, tiny_config
from tests.store.build import tree


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("pictures"), {"train": 7, "val": 2})


@pytest.fixture(scope="module")
def sealed(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sealed") / "s.zarr"
    extract(tiny_config(pictures, path))
    return path


@pytest.fixture
def store(sealed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sealed, tmp_path / "s.zarr"))


def test_overwrite_replaces_the_store_and_leaves_nothing_behind(
    store: Path, pictures: Path
) -> None:
    extract(tiny_config(pictures, store, taps="last", overwrite=True))
    assert open_store(store).spec.taps == (11,)
    assert sorted(entry.name for entry in store.parent.iterdir()) == [
        "s.zarr",
        "s.zarr.extract.json",
    ]


class StopError(Exception):
    """Stands for a kill at a chosen moment."""


def _stop_after(rows: int, phase: str) -> Callable[[ExtractEvent], None]:
    def tell(event: ExtractEvent) -> None:
        if event.phase == phase and event.done >= rows:
            raise StopError

    return tell


def test_overwrite_puts_the_old_store_back_when_no_new_one_came_into_being(
    store: Path, pictures: Path
) -> None:
    before = tree(store)
    config = tiny_config(pictures, store, taps="last", overwrite=True)
    with pytest.raises(StopError):
        extract(config, progress=_stop_after(4, "calibrate"))
    assert tree(store) == before
    assert [entry.name for entry in store.parent.iterdir()] == ["s.zarr"]


def test_an_interrupted_overwrite_goes_on_with_the_same_command(
    store: Path, pictures: Path
) -> None:
    config = tiny_config(pictures, store, taps="last", overwrite=True)
    with pytest.raises(StopError):
        extract(config, progress=_stop_after(12, "extract"))
    assert (store.parent / ".s.zarr.old").exists()
    assert 0 < extract(config)["computed_rows"] < 27
    assert open_store(store).spec.taps == (11,)
    assert not (store.parent / ".s.zarr.old").exists()


def test_overwrite_never_deletes_a_sealed_store_before_its_replacement_is_sealed(
    store: Path, pictures: Path
) -> None:
    (store.parent / ".s.zarr.old").mkdir()  # left by an overwrite of long ago
    good = open_store(store).store_id
    config = tiny_config(pictures, store, taps="last", overwrite=True)
    with pytest.raises(StopError):
        extract(config, progress=_stop_after(12, "extract"))
    assert open_store(store.parent / ".s.zarr.old").store_id == good


def test_overwrite_refuses_a_folder_that_is_no_store(tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "s.zarr").mkdir()
    (tmp_path / "s.zarr/thesis.txt").write_text("years of work")
    with pytest.raises(StoreError, match="not a losa store"):
        extract(tiny_config(pictures, tmp_path / "s.zarr", overwrite=True))
    assert (tmp_path / "s.zarr/thesis.txt").read_text() == "years of work"
