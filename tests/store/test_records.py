"""Claims of losa.store.records: which way bytes come, by regime."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from losa.errors import StoreError
from losa.features import Regime
from losa.store import open_store
from losa.store.order import EpochOrder
from losa.store.records import Records, ShardFiles, ShardRecords
from losa.store.shardfile import FileShard
from losa.store.split import RowFiles, Verify
from tests.store.build import features, small_plan, small_store

ROWS = np.arange(20)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_store(tmp_path_factory.mktemp("records") / "s.zarr")


class Counted:
    """How often records were read by ``preadv``, and shards were mapped."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads = self.maps = 0
        preadv, mapped = os.preadv, FileShard.mapped

        def read(*arguments: object) -> int:
            self.reads += 1
            return preadv(*arguments)  # type: ignore[arg-type]  # passed on

        def map_(shard: FileShard, held: int) -> object:
            self.maps += 1
            return mapped(shard, held)

        monkeypatch.setattr(os, "preadv", read)
        monkeypatch.setattr(FileShard, "mapped", map_)


@pytest.mark.parametrize(
    ("regime", "verify", "memory", "want"),
    [
        ("auto", "first", 2**40, (20, 3)),
        ("auto", "always", 2**40, (40, 0)),
        ("auto", "never", 2**40, (40, 0)),
        ("auto", "first", 4096, (40, 0)),
        ("preadv", "first", 2**40, (40, 0)),
        ("stream", "first", 2**40, (40, 0)),
        ("resident", "first", 2**40, (40, 0)),
        ("mmap", "first", 4096, (0, 3)),
        ("mmap", "always", 4096, (0, 3)),
    ],
)
def test_a_regime_decides_which_way_bytes_come(
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    regime: Regime,
    verify: Verify,
    memory: int,
    want: tuple[int, int],
) -> None:
    monkeypatch.setattr("losa.store.records._memory_bytes", lambda: memory)
    split = open_store(store, verify=verify, regime=regime).split("train")
    counted, out = Counted(monkeypatch), np.zeros((1, 20, 5, 6), "<f2")
    for _ in range(2):
        split.read_into(ROWS, (3,), out)
        np.testing.assert_array_equal(out, features(small_plan(), "train")[1:])
    assert (counted.reads, counted.maps) == want


def test_a_split_larger_than_half_of_the_memory_is_a_stream(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda *arguments: told.append(arguments[3]))
    monkeypatch.setattr("losa.store.records._memory_bytes", lambda: 2 * 20 * 120)
    out = np.zeros((1, 20, 5, 6), "<f2")
    for name, is_streamed in (("val", False), ("train", True)):
        split = open_store(store).split(name)
        rows = np.arange(split.rows)
        split.follow(EpochOrder(rows, 0, 0), (1,), 0)
        split.read_into(rows, (1,), out[:, : split.rows])
        assert bool(told) == is_streamed


def test_advice_that_cannot_be_given_breaks_nothing(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shutil.copytree(store, tmp_path / "s.zarr")
    (path / "train/tokens/tap01/c.1.0.0").unlink()

    def refuse(*_: object) -> None:
        raise OSError(22, "no such advice")

    monkeypatch.setattr(os, "posix_fadvise", refuse)
    split = open_store(path, regime="stream").split("train")
    split.follow(EpochOrder(ROWS, 0, 0), (1,), 0)
    out = np.zeros((1, 20, 5, 6), "<f2")
    split.read_into(ROWS[:8], (1,), out[:, :8])
    np.testing.assert_array_equal(out[:, :8], features(small_plan(), "train")[:1, :8])
    with pytest.raises(StoreError, match=r"tap01/c\.1\.0\.0: is missing"):
        split.read_into(ROWS, (1,), out)


def test_the_files_of_a_store_are_what_records_and_rows_are_read_from(store: Path) -> None:
    opened = open_store(store)
    assert isinstance(opened.files, RowFiles)
    assert isinstance(opened.files, ShardFiles)
    assert isinstance(ShardRecords(opened.files, "train"), Records)


@pytest.mark.parametrize("size", [0, 200])
def test_a_shard_that_is_cut_while_it_is_mapped_gives_no_zeros(
    store: Path, tmp_path: Path, size: int
) -> None:
    rows = np.arange(8)
    out = np.empty((1, 8, 5, 6), np.float16)
    for regime in ("auto", "mmap"):
        path = Path(shutil.copytree(store, tmp_path / f"{regime}.zarr"))
        reader = open_store(path, regime=regime).split("train")
        for _ in range(2):
            reader.read_into(rows, (3,), out)
        os.truncate(path / "train/tokens/tap03/c.0.0.0", size)
        with pytest.raises(StoreError, match=r"tap03/c\.0\.0\.0: has been cut"):
            reader.read_into(rows, (3,), out)
