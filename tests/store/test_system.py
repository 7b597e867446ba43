"""Claims of losa.store.system."""

from __future__ import annotations

import ctypes
import errno
import logging
from pathlib import Path

import pytest

from losa.store import system
from losa.store.system import System
from tests.store.build import begin_store, fill_store, small_plan, small_store, tree
from tests.store.systems import Forgetful, NoAtomicCreate, NoLinks, failing

WAYS: dict[str, type[System]] = {
    "links": System,
    "an answer that got lost": Forgetful,
    "no links": NoLinks,
    "no atomic create": NoAtomicCreate,
}


@pytest.fixture(autouse=True)
def unwarned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was told of a file system in one test is told again in the next."""
    monkeypatch.setattr(system, "_warned", set())


@pytest.mark.parametrize("way", WAYS)
def test_a_file_gets_a_free_name_and_loses_its_own_by_every_way(tmp_path: Path, way: str) -> None:
    (tmp_path / "aside").write_bytes(b"new")
    WAYS[way]().place(tmp_path / "aside", tmp_path / "name")
    assert tree(tmp_path) == {"name": b"new"}


@pytest.mark.parametrize("way", WAYS)
def test_a_taken_name_is_kept_by_every_way(tmp_path: Path, way: str) -> None:
    (tmp_path / "aside").write_bytes(b"new")
    (tmp_path / "name").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        WAYS[way]().place(tmp_path / "aside", tmp_path / "name")
    assert tree(tmp_path) == {"aside": b"new", "name": b"old"}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_placing_files_gives_the_same_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    want = tree(small_store(tmp_path / "a.zarr"))
    monkeypatch.setattr(system, "current", WAYS[way]())
    assert tree(small_store(tmp_path / "b.zarr")) == want


def test_only_the_last_way_is_warned_of_and_that_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for number, kind in enumerate((NoLinks, NoAtomicCreate)):
        assert caplog.messages == []
        monkeypatch.setattr(system, "current", kind())
        with caplog.at_level(logging.WARNING):
            small_store(tmp_path / f"{number}.zarr")
    (message,) = caplog.messages
    assert "has no atomic create: let only one process write this store" in message


def test_a_crash_where_nothing_is_atomic_leaves_no_empty_seal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(NoAtomicCreate):
        def rename(self, source: Path, target: Path) -> None:
            if target.name == "sealed.json":
                raise KeyboardInterrupt
            super().rename(source, target)

    path = tmp_path / "s.zarr"
    begin_store(path, small_plan())
    monkeypatch.setattr(system, "current", Killed())
    with pytest.raises(KeyboardInterrupt):
        fill_store(path, small_plan())
    monkeypatch.setattr(system, "current", NoAtomicCreate())
    fill_store(path, small_plan())
    monkeypatch.undo()
    assert tree(path) == tree(small_store(tmp_path / "t.zarr"))


@pytest.mark.parametrize("kind", [System, NoLinks])
def test_a_disk_that_fails_is_not_taken_for_one_without_links(
    tmp_path: Path, kind: type[System]
) -> None:
    (tmp_path / "aside").write_bytes(b"new")
    broken = kind()
    act = "link" if kind is System else "rename_new"
    setattr(broken, act, getattr(failing(act, errno.EIO), act))
    with pytest.raises(OSError, match="Input/output error"):
        broken.place(tmp_path / "aside", tmp_path / "name")


def test_a_c_library_without_the_sparing_rename_is_as_a_kernel_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_: object, **__: object) -> None:
        raise OSError(errno.ENOENT, "no library")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    monkeypatch.setattr(system, "_c_library", system._c_library.__wrapped__)
    with pytest.raises(OSError, match="not implemented") as caught:
        System().rename_new(tmp_path / "a", tmp_path / "b")
    assert caught.value.errno in system.NO_SUCH_CALL


def test_a_disk_is_asked_to_begin_and_nothing_depends_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.write(b"1")
        file.flush()
        System().begin_sync(file.fileno(), 0, 1)
        monkeypatch.setattr(system, "_c_library", lambda _: None)
        System().begin_sync(file.fileno(), 0, 1)
    assert (tmp_path / "file").read_bytes() == b"1"


def test_two_folders_swap_their_names_in_one_act(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "is").write_text(name)
    System().exchange(tmp_path / "a", tmp_path / "b")
    assert tree(tmp_path) == {"a/is": b"b", "b/is": b"a"}


def test_a_name_that_nothing_has_is_removed_without_a_word(tmp_path: Path) -> None:
    System().unlink(tmp_path / "gone")


def test_nothing_is_synced_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    System().sync_file(tmp_path / "file")
    System().sync_folder(tmp_path)
    with pytest.raises(OSError, match="symbolic links"):
        System().sync_file(tmp_path / "link")
    with pytest.raises(NotADirectoryError):
        System().sync_folder(tmp_path / "file")


def test_a_name_that_was_taken_and_is_free_again_counts_as_taken(tmp_path: Path) -> None:
    class Fleeting(System):
        def link(self, source: Path, target: Path) -> None:
            raise FileExistsError(errno.EEXIST, f"taken before {source.name}", str(target))

    (tmp_path / "a").write_bytes(b"a")
    with pytest.raises(FileExistsError):
        Fleeting().place(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").exists()
