"""Claims of losa.store.remote: stores behind URLs, and in the hands of zarr."""

from __future__ import annotations

import builtins
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from zarr.storage import LocalStore, MemoryStore

from losa.errors import ResourceError, StoreError, UsageError
from losa.features import Regime
from losa.store import layout, open_store
from losa.store.remote import RemoteFiles
from tests.store.build import begin_store, features, small_plan, small_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_store(tmp_path_factory.mktemp("remote") / "s.zarr")


@pytest.fixture
def memory(store: Path) -> Iterator[str]:
    """The URL of a copy in fsspec's memory."""
    fsspec = pytest.importorskip("fsspec", reason="it comes with torch, and is none of ours")
    system = fsspec.filesystem("memory")
    system.put(str(store), "/remote/s.zarr", recursive=True)
    yield "memory://remote/s.zarr"
    system.rm("/remote", recursive=True)


def assert_as_written(place: Any) -> None:
    opened = open_store(place)
    out = np.zeros((2, 3, 5, 6), "<f2")
    opened.split("train").read_into(np.array([19, 0, 8]), (1, 3), out)
    np.testing.assert_array_equal(out, features(small_plan(), "train")[:, [19, 0, 8]])


def test_a_store_in_the_hands_of_zarr_is_read(store: Path) -> None:
    assert_as_written(LocalStore(store, read_only=True))
    opened = open_store(LocalStore(store, read_only=True))
    assert opened.store_id == open_store(store).store_id


def test_a_store_behind_a_url_is_read(memory: str) -> None:
    assert_as_written(memory)


@pytest.mark.parametrize("regime", ["preadv", "mmap", "stream"])
def test_regimes_of_raw_files_are_refused_where_there_are_none(store: Path, regime: Regime) -> None:
    with pytest.raises(UsageError, match="reads raw records in a folder, which those of LocalSt"):
        open_store(LocalStore(store, read_only=True), regime=regime)


def test_what_is_no_sealed_store_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"MemoryStore: is not a losa store \(no zarr\.json\)"):
        open_store(MemoryStore())
    begin_store(tmp_path / "s.zarr", small_plan())
    with pytest.raises(StoreError, match="LocalStore: is not sealed"):
        open_store(LocalStore(tmp_path / "s.zarr", read_only=True))
    (tmp_path / "s.zarr/zarr.json").write_text("{}")
    with pytest.raises(StoreError, match=r"zarr\.json: has no attributes\.losa\.format"):
        open_store(LocalStore(tmp_path / "s.zarr", read_only=True))


@pytest.mark.parametrize(
    "name", [layout.PLAN_OBJECT, layout.commit_object("train", 2), "train/check/tap03/c.2"]
)
def test_what_is_missing_far_away_is_named(store: Path, tmp_path: Path, name: str) -> None:
    path = Path(shutil.copytree(store, tmp_path / "s.zarr"))
    (path / name).unlink()
    with pytest.raises(StoreError, match=f"{name}: is missing; copy the store again"):
        assert_as_written(LocalStore(path, read_only=True))


@pytest.mark.parametrize(
    "url",
    [
        "file:///tmp/s.zarr",
        "FILE:///tmp/s.zarr",
        "local:///tmp/s.zarr",
        "reference://x",
        "simplecache::s3://bucket/s.zarr",
        "zip://s.zarr::https://host/a.zip",
        "s3://bucket/a::file:///tmp",
    ],
)
def test_urls_that_lead_back_to_this_machine_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="is a URL that is not read; give the path of a folder"):
        open_store(url)


def test_messages_hold_no_secrets() -> None:
    with pytest.raises(UsageError) as caught:
        open_store("file://me:pass@host/s.zarr?sig=secret")
    assert str(caught.value).startswith("file:/host/s.zarr: ")


def test_what_zarr_cannot_open_is_an_error_of_one_line() -> None:
    pytest.importorskip("fsspec", reason="it comes with torch, and is none of ours")
    with pytest.raises(StoreError, match="cannot be read through zarr") as caught:
        open_store("nonsense://x/s.zarr")
    assert "\n" not in str(caught.value)


def test_without_a_package_that_opens_the_scheme_the_user_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forget(monkeypatch, "fsspec", "obstore")
    with pytest.raises(ResourceError, match="needs what opens s3; install obstore, or") as caught:
        open_store("s3://bucket/s.zarr")
    assert caught.value.exit_code == 6


def test_obstore_opens_what_fsspec_does_not(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch, "fsspec")
    module = ModuleType("obstore.store")
    module.from_url = lambda url: (url, store)  # type: ignore[attr-defined]  # a stand-in
    monkeypatch.setitem(sys.modules, "obstore", ModuleType("obstore"))
    monkeypatch.setitem(sys.modules, "obstore.store", module)

    def stand_in(opened: tuple[str, Path], *, read_only: bool) -> LocalStore:
        assert opened[0] == "s3://bucket/s.zarr"
        return LocalStore(opened[1], read_only=read_only)

    monkeypatch.setattr("zarr.storage.ObjectStore", stand_in)
    assert_as_written("s3://bucket/s.zarr")
    assert RemoteFiles("s3://bucket/s.zarr").path == Path("s3:/bucket/s.zarr")


def forget(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Make packages as good as not installed."""
    found = builtins.__import__

    def import_(name: str, *arguments: Any, **more: Any) -> ModuleType:
        if name.partition(".")[0] in packages and name not in sys.modules:
            raise ImportError(f"no module named {name}")
        return found(name, *arguments, **more)

    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", import_)
