"""Claims of losa.store.order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from losa.store.order import EpochOrder, epoch_order, row_order


@given(n=st.integers(0, 3000), seed=st.integers(0, 2**63), epoch=st.integers(0, 1000))
def test_every_epoch_visits_every_row_once(n: int, seed: int, epoch: int) -> None:
    rows = np.arange(n, dtype=np.int64) * 3
    order = epoch_order(rows, seed, epoch)
    assert np.array_equal(np.sort(order), rows)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    rows = np.arange(2000, dtype=np.int64)
    first = epoch_order(rows, 1, 2)
    assert np.array_equal(first, epoch_order(rows, 1, 2))
    assert not np.array_equal(first, epoch_order(rows, 1, 3))
    assert not np.array_equal(first, epoch_order(rows, 2, 2))


def test_a_window_holds_whole_blocks_of_neighbours() -> None:
    rows = np.arange(4096, dtype=np.int64)
    order = epoch_order(rows, 0, 0, block=64, window=8)
    for start in range(0, 4096, 512):
        blocks = np.unique(order[start : start + 512] // 64)
        assert len(blocks) == 8


def test_the_stream_is_the_documented_philox() -> None:
    # The oracle writes the recipe out again: raw Philox words, sorted.
    words = np.random.Philox(key=[5, 0], counter=[0, 0, 0, 0]).random_raw(3)
    blocks = np.argsort(words, kind="stable")
    rows = np.arange(3, dtype=np.int64)
    inner = np.random.Philox(key=[5, 1], counter=[0, 0, 0, 0]).random_raw(3)
    want = rows[blocks][np.argsort(inner, kind="stable")]
    assert np.array_equal(epoch_order(rows, 5, 0, block=1, window=8), want)


@given(n=st.integers(0, 700), epoch=st.integers(0, 9), block=st.integers(1, 70))
def test_a_row_lies_in_the_window_that_holds_it(n: int, epoch: int, block: int) -> None:
    order = EpochOrder(np.arange(n, dtype=np.int64) * 3, 1, epoch, block, window=3)
    want = {row: window for window in range(order.windows) for row in order.window(window).tolist()}
    asked = np.arange(-2, 3 * n + 2)
    assert order.windows_of(asked).tolist() == [want.get(row, -1) for row in asked.tolist()]


def test_known_order_never_changes() -> None:
    # A store written long ago must find its rows again: this order is frozen with format 1.
    assert row_order(8, 0, "train").tolist() == [6, 1, 2, 0, 3, 4, 5, 7]


@pytest.mark.parametrize("other", ["val", "test"])
def test_splits_have_orders_of_their_own(other: str) -> None:
    assert not np.array_equal(row_order(100, 0, "train"), row_order(100, 0, other))
