"""Claims of losa.store.stream: what is fetched and dropped, and when."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Thread

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from losa.features import FeatureSpec, TokenGrid
from losa.store import Plan, layout, open_store
from losa.store.order import EpochOrder, epoch_order
from losa.store.split import SplitReader
from losa.store.stream import Follower, runs
from tests.store.build import small_plan, small_store

ROWS, SHARD_ROWS, PAGE = 1300, 100, 4096
CHOSEN = np.setdiff1d(np.arange(ROWS), np.arange(5, ROWS, 90))
"""Rows of the epoch: some are held out."""

WINDOW, BATCH = 512, 48
Advice = dict[tuple[str, int], np.ndarray]
"""Bytes of a file (its name below the store) and the advice that they were given."""


def plan_of(dtype: str) -> Plan:
    """Records of one and a half pages (int8: a little less than one)."""
    spec = FeatureSpec("toy", (1, 3), TokenGrid(8, 8), 48, dtype)  # type: ignore[arg-type]  # a parameter
    return replace(small_plan({"train": ROWS}, shard_rows=SHARD_ROWS), spec=spec)


class Advised:
    """Everything that the kernel is told while a test runs, as marked bytes of files."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root = root
        self._marks: Advice = {}
        monkeypatch.setattr(os, "posix_fadvise", self._note)

    def _note(self, handle: int, start: int, length: int, advice: int) -> None:
        assert length > 0
        path = Path(f"/proc/self/fd/{handle}").readlink()
        name = path.relative_to(self._root).as_posix()
        marks = self._marks.setdefault((name, advice), np.zeros(path.stat().st_size, np.bool_))
        marks[start : start + length] = True

    def take(self) -> Advice:
        """What was told since the last look."""
        taken, self._marks = self._marks, {}
        return taken


def bytes_of(plan: Plan, tap: int, rows: np.ndarray) -> dict[str, np.ndarray]:
    """The bytes of some rows' records, file by file: the oracle."""
    marked: dict[str, np.ndarray] = {}
    kinds = [(layout.tokens_object, plan.spec.record_bytes)]
    if plan.spec.scale_bytes:
        kinds.append((layout.scale_object, plan.spec.scale_bytes))
    for name_of, size in kinds:
        for row in rows.tolist():
            shard, slot = divmod(row, SHARD_ROWS)
            held = min(SHARD_ROWS, ROWS - shard * SHARD_ROWS)
            empty = np.zeros(layout.shard_file_bytes(held, SHARD_ROWS, size), np.bool_)
            name = name_of("train", tap, shard)
            marked.setdefault(name, empty)[slot * size : (slot + 1) * size] = True
    return marked


def wanted(plan: Plan, tap: int, rows: np.ndarray, advice: int) -> Advice:
    """What should be told of a window: all of it is needed; of it, whole pages are not any more."""
    found: Advice = {}
    for name, marks in bytes_of(plan, tap, rows).items():
        if advice == os.POSIX_FADV_DONTNEED:
            pages = len(marks) // PAGE * PAGE
            whole = marks[:pages].reshape(-1, PAGE).all(1).repeat(PAGE)
            marks = np.concatenate([whole, np.zeros(len(marks) - pages, np.bool_)])  # noqa: PLW2901 -- the same marks, cut
        if marks.any():
            found[name, advice] = marks
    return found


def assert_same(found: Advice, want: Advice) -> None:
    assert found.keys() == want.keys()
    for key, marks in want.items():
        np.testing.assert_array_equal(found[key], marks)


@pytest.fixture(scope="module", params=["float16", "int8"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stream") / "s.zarr"
    return small_store(path, plan_of(request.param))


def read(split: SplitReader, rows: np.ndarray, taps: tuple[int, ...]) -> None:
    out = np.zeros((len(taps), len(rows), 64, 48), split.raw_dtype)
    is_scaled = split.spec.scale_bytes > 0
    scales = np.zeros((len(taps), len(rows), 64), "<f2") if is_scaled else None
    split.read_into(rows, taps, out, scales)


@pytest.mark.parametrize("start", [0, 20])
def test_windows_are_fetched_one_ahead_and_dropped_once_left(
    store: Path, monkeypatch: pytest.MonkeyPatch, start: int
) -> None:
    opened = open_store(store, regime="stream")
    split, plan = opened.split("train"), opened.plan
    advised = Advised(store, monkeypatch)
    order = epoch_order(CHOSEN, 3, 1)
    split.follow(EpochOrder(CHOSEN, 3, 1), (3,), start * BATCH)
    # The windows of the epoch by position; the last block is short, wherever it has got to.
    ends = np.cumsum([len(EpochOrder(CHOSEN, 3, 1).members(window)) for window in range(3)])
    fetched = dropped = int(np.searchsorted(ends, start * BATCH, "right"))
    windows = np.split(order, ends[:-1])
    for first in range(start * BATCH, len(order), BATCH):
        rows = order[first : first + BATCH]
        read(split, rows, (3,))
        now = int(np.searchsorted(ends, first + len(rows) - 1, "right"))
        want: Advice = {}
        for window in range(fetched, min(now + 2, 3)):
            merge(want, wanted(plan, 3, windows[window], os.POSIX_FADV_WILLNEED))
            fetched = window + 1
        for window in range(dropped, now):
            merge(want, wanted(plan, 3, windows[window], os.POSIX_FADV_DONTNEED))
            dropped = window + 1
        assert_same(advised.take(), want)
    assert (fetched, dropped) == (3, 2)


def merge(into: Advice, more: Advice) -> None:
    for key, marks in more.items():
        into[key] = into[key] | marks if key in into else marks


def test_taps_and_rows_that_nobody_announced_are_read_without_advice(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = open_store(store, regime="stream").split("train")
    advised = Advised(store, monkeypatch)
    read(split, CHOSEN[:8], (1, 3))
    split.follow(EpochOrder(CHOSEN, 0, 0), (3,), 0)
    read(split, np.array([5, 95]), (3,))
    read(split, CHOSEN[:8], (1,))
    split.follow(EpochOrder(CHOSEN[:0], 0, 0), (3,), 0)
    read(split, CHOSEN[:8], (3,))
    split.follow(EpochOrder(CHOSEN, 0, 0), (3,), len(CHOSEN))
    split.follow(None, (3,), 0)
    read(split, CHOSEN[:8], (3,))
    assert not advised.take()


@pytest.mark.parametrize("regime", ["auto", "preadv", "mmap", "resident"])
def test_only_a_stream_gives_advice(
    store: Path, monkeypatch: pytest.MonkeyPatch, regime: str
) -> None:
    split = open_store(store, regime=regime).split("train")  # type: ignore[arg-type]  # a parameter
    advised = Advised(store, monkeypatch)
    split.follow(EpochOrder(CHOSEN, 0, 0), (3,), 0)
    read(split, epoch_order(CHOSEN, 0, 0)[:600], (3,))
    assert not advised.take()


def test_threads_that_read_one_tap_fetch_and_drop_each_window_once() -> None:
    order = EpochOrder(np.arange(4096), 7, 0)
    whole = order.part(0, 4096)
    follower, found = Follower(order, (1,), 0), defaultdict[str, list[int]](list)
    begin = Barrier(4)

    def reader(number: int) -> None:
        begin.wait()
        for first in range(8 * number, 4096, 32):
            rows = whole[first : first + 8]
            found["fetched"].extend(follower.enter(1, rows))
            found["dropped"].extend(follower.leave(1, rows))

    threads = [Thread(target=reader, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found["fetched"]) == list(range(8))
    assert sorted(found["dropped"]) == list(range(7))


def neighbours(rows: list[int], shard_rows: int) -> Iterator[tuple[int, int, int]]:
    """Runs one row at a time: the oracle."""
    for row in rows:
        shard, slot = divmod(row, shard_rows)
        if row - 1 not in rows or slot == 0:
            stop = row
            while stop + 1 in rows and (stop + 1) % shard_rows:
                stop += 1
            yield shard, slot, stop - shard * shard_rows + 1


@given(rows=st.sets(st.integers(0, 60)), shard_rows=st.integers(1, 20))
def test_runs_are_those_of_neighbours_within_a_shard(rows: set[int], shard_rows: int) -> None:
    listed = sorted(rows)
    found = runs(np.array(listed, dtype=np.int64), shard_rows)
    assert found == list(neighbours(listed, shard_rows))


def test_a_batch_larger_than_a_window_leaves_none_behind() -> None:
    order = EpochOrder(np.arange(4096), 7, 0)
    follower = Follower(order, (1,), 0)
    assert list(follower.enter(1, order.part(0, 2000))) == [3, 4]
    assert list(follower.leave(1, order.part(0, 2000))) == [0, 1, 2]
    assert list(follower.enter(1, order.part(2000, 4096))) == [7]
    assert list(follower.leave(1, order.part(2000, 4096))) == [3, 4, 5, 6]
