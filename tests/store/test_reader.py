"""Claims of losa.store.reader."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from losa.errors import ResourceError, StoreError
from losa.store import layout, open_store
from losa.store.reader import count_committed
from tests.store.build import begin_store, small_plan, small_store, statistics

TAPS = (1, 3)
SHARD = "train/tokens/tap03/c.1.0.0"


def read(path: Path, rows: list[int], split: str = "train") -> np.ndarray:
    reader = open_store(path).split(split)
    out = np.zeros((2, len(rows), 5, 6), reader.raw_dtype)
    reader.read_into(np.array(rows, dtype=np.int64), TAPS, out)
    return out


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_store(tmp_path_factory.mktemp("reader") / "s.zarr")


@pytest.fixture
def store(sealed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sealed, tmp_path / "s.zarr"))


def test_calibration_is_that_of_the_taps_asked_for(sealed: Path) -> None:
    calibration = open_store(sealed).calibration((3,))
    np.testing.assert_array_equal(calibration.mean, statistics(small_plan())["mean"][1:])
    assert calibration.exponent == (0,)


def test_store_id_is_the_digest_of_the_seal(sealed: Path, store: Path) -> None:
    assert open_store(sealed).store_id == open_store(store).store_id
    assert open_store(small_store(store.parent / "t.zarr", small_plan({"train": 8}))).store_id != (
        open_store(store).store_id
    )


def flip(path: Path, at: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def link_aside(path: Path) -> None:
    moved = path.with_name("moved")
    path.rename(moved)
    path.symlink_to(moved)


DAMAGE: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "missing shard": (SHARD, Path.unlink, f"{SHARD}: is missing"),
    "truncated shard": (SHARD, truncate, rf"{SHARD}: is 611 bytes, not 612"),
    "empty shard": (SHARD, lambda path: os.truncate(path, 0), "is 0 bytes, not 612"),
    "flipped bit": (SHARD, flip, rf"{SHARD}: row 8 does not match its checksum"),
    "changed check": ("train/check/tap03/c.1", flip, r"check/tap03/c\.1: is not the file"),
    "changed labels": ("train/sample/label/c.0", flip, r"label/c\.0: is not the file"),
    "changed plan": (layout.PLAN_OBJECT, flip, r"plan\.json: is not the file"),
    "changed commit": (layout.commit_object("train", 1), flip, r"000001\.json: is not"),
    "cut seal": (layout.SEALED_OBJECT, truncate, r"sealed\.json: is not as losa writes it"),
    "cut metadata": (layout.ROOT_OBJECT, lambda path: os.truncate(path, 9), "is not sound JSON"),
    "linked shard": (SHARD, link_aside, "is a symbolic link"),
    "linked tap": ("train/tokens/tap03", link_aside, "train/tokens/tap03: is a symbolic link"),
    "linked checks": ("train/check", link_aside, "train/check: is a symbolic link"),
    "linked column": ("train/sample/label", link_aside, "sample/label: is a symbolic link"),
    "linked split": ("train", link_aside, "s.zarr/train: is a symbolic link"),
    "linked commits": (".losa/commits", link_aside, "losa/commits: is a symbolic link"),
    "linked losa": (".losa", link_aside, "losa: is a symbolic link"),
}


def read_all(path: Path) -> None:
    """Touch everything that training touches."""
    read(path, list(range(20)))
    reader = open_store(path).split("train")
    assert len(reader.labels) == len(reader.status) == 20


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_an_error_that_names_the_file(store: Path, name: str) -> None:
    file, damage, message = DAMAGE[name]
    damage(store / file)
    with pytest.raises(StoreError, match=message) as caught:
        read_all(store)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)


def test_an_unsealed_store_is_refused_with_its_progress(tmp_path: Path) -> None:
    begin_store(tmp_path / "s.zarr", small_plan())
    with pytest.raises(StoreError, match=r"not sealed \(0 of 4 shards are committed\); run the"):
        open_store(tmp_path / "s.zarr")


def test_a_copy_that_dropped_empty_folders_still_tells_its_progress(tmp_path: Path) -> None:
    begin_store(tmp_path / "s.zarr", small_plan())
    shutil.rmtree(tmp_path / "s.zarr/.losa/commits")
    shutil.rmtree(tmp_path / "s.zarr/.losa/tmp")
    with pytest.raises(StoreError, match=r"not sealed \(0 of 4 shards are committed\); run the"):
        open_store(tmp_path / "s.zarr")


def test_a_failing_disk_is_a_resource_error(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(ResourceError, match=r"c\.0\.0\.0: input/output error") as caught:
        read(sealed, [0])
    assert caught.value.exit_code == 6


def test_a_newer_format_is_refused_by_number(store: Path) -> None:
    root = store / layout.ROOT_OBJECT
    document = json.loads(root.read_text())
    document["attributes"]["losa"] |= {"format": {"major": 2, "minor": 0}, "writer": "losa 2.1.0"}
    root.write_text(json.dumps(document))
    with pytest.raises(StoreError, match=r"is losa store format 2 \(written by losa 2\.1\.0\)"):
        open_store(store)


def test_what_is_no_store_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        open_store(tmp_path / "none")
    with pytest.raises(StoreError, match=r"not a losa store \(no zarr\.json\)"):
        open_store(tmp_path)
    (tmp_path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    with pytest.raises(StoreError, match=r"has no attributes\.losa\.format"):
        open_store(tmp_path)


def test_an_unknown_split_lists_those_there_are(sealed: Path) -> None:
    with pytest.raises(StoreError, match=r"no split 'tset'; it has train, val"):
        open_store(sealed).split("tset")


def test_what_should_be_a_folder_of_commit_records_is_named(tmp_path: Path) -> None:
    begin_store(tmp_path / "s.zarr", small_plan())
    folder = tmp_path / "s.zarr/.losa/commits/train"
    folder.rmdir()
    folder.write_bytes(b"")
    with pytest.raises(ResourceError, match="commits/train: not a directory"):
        count_committed(tmp_path / "s.zarr", "train")
