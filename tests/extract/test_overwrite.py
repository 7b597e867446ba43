"""Claims of losa.extract.overwrite."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from losa.errors import LockedError, MismatchError, ResourceError, StoreError
from losa.extract.overwrite import set_aside
from losa.extract.run import extract
from losa.store import create_store, layout, lock, open_store
from tests.extract.extending import StopError, stop_after
from tests.extract.picture_folder import picture_folder, tiny_config
from tests.store.build import begin_store, small_plan, small_store, tree


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


def test_overwrite_puts_the_old_store_back_when_no_new_one_came_into_being(
    store: Path, pictures: Path
) -> None:
    before = tree(store)
    config = tiny_config(pictures, store, taps="last", overwrite=True)
    with pytest.raises(StopError):
        extract(config, progress=stop_after(4, "calibrate"))
    assert tree(store) == before
    assert [entry.name for entry in store.parent.iterdir()] == ["s.zarr"]


def test_an_interrupted_overwrite_goes_on_with_the_same_command(
    store: Path, pictures: Path
) -> None:
    config = tiny_config(pictures, store, taps="last", overwrite=True)
    with pytest.raises(StopError):
        extract(config, progress=stop_after(12, "extract"))
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
        extract(config, progress=stop_after(12, "extract"))
    assert open_store(store.parent / ".s.zarr.old").store_id == good


def test_overwrite_refuses_a_folder_that_is_no_store(tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "s.zarr").mkdir()
    (tmp_path / "s.zarr/thesis.txt").write_text("years of work")
    with pytest.raises(StoreError, match="not a losa store"):
        extract(tiny_config(pictures, tmp_path / "s.zarr", overwrite=True))
    assert (tmp_path / "s.zarr/thesis.txt").read_text() == "years of work"


def test_a_store_that_somebody_writes_is_not_moved_aside(store: Path, pictures: Path) -> None:
    (store / layout.SEALED_OBJECT).unlink()
    before = tree(store)
    with lock.shared(store), pytest.raises(LockedError) as caught:
        extract(tiny_config(pictures, store, taps="last", overwrite=True))
    assert caught.value.exit_code == 7
    assert tree(store) == before
    assert [entry.name for entry in store.parent.iterdir()] == ["s.zarr"]


# The folder alone, without an extraction.

PLAN = small_plan({"train": 8})
OTHER = small_plan({"train": 12})


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return small_store(tmp_path / "t.zarr", OTHER)


def old_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def test_without_overwrite_an_interrupted_one_is_told_in_one_line(
    toy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small_store(old_of(toy), OTHER)
    with caplog.at_level(logging.WARNING), set_aside(toy, OTHER.digest, active=False):
        pass
    (record,) = caplog.records
    assert record.getMessage().startswith(str(old_of(toy)))
    assert "--overwrite" in record.getMessage()
    assert old_of(toy).exists()


def test_a_store_of_another_plan_that_an_interrupted_overwrite_began_is_not_deleted(
    toy: Path,
) -> None:
    toy.rename(old_of(toy))
    begin_store(toy, PLAN)
    before = tree(toy.parent)
    with (
        pytest.raises(MismatchError, match=r"t\.zarr: was begun by an --overwrite") as caught,
        set_aside(toy, OTHER.digest, active=True),
    ):
        pass
    assert ".t.zarr.old" in str(caught.value)
    assert tree(toy.parent) == before


def test_several_processes_join_one_overwrite(toy: Path) -> None:
    with set_aside(toy, PLAN.digest, active=True):
        begin_store(toy, PLAN)
        with lock.shared(toy), set_aside(toy, PLAN.digest, active=True):
            pass
        assert old_of(toy).exists()
        shutil.rmtree(toy)
        small_store(toy, PLAN)
    assert [entry.name for entry in toy.parent.iterdir()] == ["t.zarr"]


def test_what_another_process_deletes_first_is_no_error(toy: Path) -> None:
    with set_aside(toy, PLAN.digest, active=True):
        small_store(toy, PLAN)
        shutil.rmtree(old_of(toy))
    assert [entry.name for entry in toy.parent.iterdir()] == ["t.zarr"]


def test_what_the_next_overwrite_has_put_aside_is_not_deleted(toy: Path) -> None:
    with set_aside(toy, PLAN.digest, active=True):
        new = tree(small_store(toy, PLAN))
        shutil.rmtree(old_of(toy))
        toy.rename(old_of(toy))
    assert tree(old_of(toy)) == new


def test_what_stands_in_the_new_stores_place_keeps_the_old_one_aside(toy: Path) -> None:
    def begin_and_stop() -> None:
        with set_aside(toy, PLAN.digest, active=True):
            begin_store(toy, PLAN)
            raise StopError

    with pytest.raises(StopError):
        begin_and_stop()
    assert open_store(old_of(toy)).plan == OTHER


def test_a_store_without_its_own_folder_can_be_replaced(toy: Path) -> None:
    shutil.rmtree(toy / ".losa")
    with set_aside(toy, PLAN.digest, active=True):
        small_store(toy, PLAN)
    assert [entry.name for entry in toy.parent.iterdir()] == ["t.zarr"]


def test_a_folder_that_cannot_be_renamed_is_named(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", fail)
    with (
        pytest.raises(ResourceError, match=r"t\.zarr: permission denied"),
        set_aside(toy, PLAN.digest, active=True),
    ):
        pass


def test_a_store_that_was_replaced_before_the_first_row_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = picture_folder(tmp_path / "pictures", {"train": 4})
    path = tmp_path / "s.zarr"

    def replaced(*arguments: Any, **more: Any) -> None:
        create_store(*arguments, **more)
        shutil.rmtree(path)
        begin_store(path, small_plan())

    monkeypatch.setattr("losa.extract.run.create_store", replaced)
    with pytest.raises(LockedError, match="was replaced by another store"):
        extract(tiny_config(pictures, path))
    assert not any((path / ".losa/commits/train").iterdir())
