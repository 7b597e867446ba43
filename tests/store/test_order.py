"""Claims of losa.store.order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from losa.store.order import EpochOrder, epoch_order, row_order, row_places, view_draw


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


@given(samples=st.integers(1, 60), views=st.integers(1, 9), seed=st.integers(0, 2**63))
def test_every_view_of_every_sample_is_a_row_once(samples: int, views: int, seed: int) -> None:
    places = row_places(samples, views, seed, "train")
    pairs = sorted(zip(places.source_index.tolist(), places.view.tolist(), strict=True))
    assert pairs == [(sample, view) for sample in range(samples) for view in range(views)]


def test_one_view_leaves_the_order_as_it_was() -> None:
    places = row_places(100, 1, 5, "train")
    assert np.array_equal(places.source_index, row_order(100, 5, "train"))
    assert not places.view.any()


def test_any_run_of_rows_has_a_fair_share_of_every_view() -> None:
    view = row_places(1000, 4, 0, "train").view
    for start in range(0, 4000, 400):
        counts = np.bincount(view[start : start + 400], minlength=4)
        # 100 of each is expected, with a standard deviation of 8.7.
        assert counts.min() > 60


def test_what_a_sample_draws_depends_on_seed_epoch_and_itself_alone() -> None:
    few, many = view_draw(10, 3, 4), view_draw(1000, 3, 4)
    assert np.array_equal(few, many[:10])
    for seed, epoch in ((3, 5), (4, 4)):
        assert not np.array_equal(few, view_draw(10, seed, epoch))


def test_the_draw_of_views_is_a_stream_of_its_own() -> None:
    # The oracle writes the recipe out again: the third word of the counter is the draw's.
    words = np.random.Philox(key=[3, 8], counter=[0, 0, 1, 0]).random_raw(10)
    assert np.array_equal(view_draw(10, 3, 4), words)
