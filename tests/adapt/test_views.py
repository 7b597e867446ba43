"""Claims of losa.adapt.views: one row of every sample and epoch, and every view its share."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from losa.adapt.views import ViewDraw
from tests.adapt.memory_store import MemorySplit, separable_store


def viewed(samples: int = 30, views: int = 4) -> MemorySplit:
    return separable_store({"train": samples}, views=views).split("train")


def shown(split: MemorySplit, rows: np.ndarray) -> list[tuple[int, int]]:
    """Sample and view of some rows."""
    return list(zip(split.source_index[rows].tolist(), split.views[rows].tolist(), strict=True))


@settings(deadline=None, max_examples=15)
@given(
    samples=st.integers(1, 40),
    views=st.integers(2, 6),
    seed=st.integers(0, 2**63 - 1),
    start=st.integers(0, 10**6),
)
def test_over_many_epochs_every_view_of_a_sample_is_shown_about_equally_and_one_an_epoch(
    samples: int, views: int, seed: int, start: int
) -> None:
    split = viewed(samples, views)
    draw = ViewDraw(split, np.arange(split.rows), seed)
    epochs, seen = 400, Counter[tuple[int, int]]()
    assert draw.samples == samples
    for epoch in range(start, start + epochs):
        rows = draw.rows(epoch)
        assert np.array_equal(rows, np.sort(rows))
        pairs = shown(split, rows)
        assert sorted(sample for sample, _ in pairs) == list(range(samples))
        seen.update(pairs)
    # Binomial: beyond six standard deviations of any of at most 240 counts, once in two million.
    mean, share = epochs / views, 1 / views
    spread = 6 * (epochs * share * (1 - share)) ** 0.5
    for pair in ((sample, view) for sample in range(samples) for view in range(views)):
        assert abs(seen[pair] - mean) < spread, pair


def test_the_draw_is_a_function_of_seed_epoch_and_sample_alone() -> None:
    split = viewed()
    every, some = np.arange(split.rows), np.flatnonzero(split.source_index % 3 == 0)
    whole = dict(shown(split, ViewDraw(split, every, 5).rows(7)))
    part = dict(shown(split, ViewDraw(split, some, 5).rows(7)))
    assert part == {sample: view for sample, view in whole.items() if sample % 3 == 0}
    for other in (ViewDraw(split, every, 5).rows(8), ViewDraw(split, every, 6).rows(7)):
        assert dict(shown(split, other)) != whole


def test_samples_draw_independently_of_each_other() -> None:
    split = viewed(200, 2)
    draw = ViewDraw(split, np.arange(split.rows), 0)
    counts = [sum(view for _, view in shown(split, draw.rows(epoch))) for epoch in range(50)]
    # 100 of 200 with a standard deviation of 7; were they drawn together it would be 0 or 200.
    assert 4 < np.std(counts) < 11
    assert 60 < min(counts) <= max(counts) < 140


def test_a_view_that_was_skipped_leaves_its_share_to_the_others_of_its_sample() -> None:
    split = viewed()
    lost = (split.source_index == 4) & (split.views != 2) | (split.source_index == 9)
    draw = ViewDraw(split, np.flatnonzero(~lost), 0)
    assert draw.samples == 29
    for epoch in range(40):
        found = dict(shown(split, draw.rows(epoch)))
        assert found[4] == 2
        assert sorted(found) == [sample for sample in range(30) if sample != 9]


def test_of_one_view_nothing_is_drawn() -> None:
    split = viewed(views=1)
    # Were it looked at, all rows would be of one sample.
    split.source_index[:] = 0
    draw = ViewDraw(split, np.array([3, 5, 20]), 0)
    assert draw.samples == 3
    assert draw.rows(0).tolist() == draw.rows(1).tolist() == [3, 5, 20]
