"""The loader's claims: the order is the store's pure function, and a resume seeks."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from losa.adapt.loader import FeatureLoader
from losa.adapt.ring import Ring, RingOptions, ring_on
from losa.errors import InputError
from losa.features import StoreDtype
from losa.store.order import EpochOrder, epoch_order
from tests.adapt.memory_store import MemoryStore, raw_of, separable_store

CPU = torch.device("cpu")
ROWS = np.arange(3, 80, dtype=np.int64)


def ring_of(store: MemoryStore, batch_size: int = 8) -> Ring:
    return Ring(store.spec, RingOptions(batch_size, CPU), store.exponents)


def test_an_epoch_is_the_stores_order_of_that_seed_and_epoch() -> None:
    store = separable_store()
    with ring_of(store) as ring:
        loader = FeatureLoader(store.split("train"), ROWS, ring, seed=5, shuffle=True)
        for epoch in range(3):
            found = np.concatenate([batch.rows for batch in loader.epoch(epoch)])
            np.testing.assert_array_equal(found, epoch_order(ROWS, 5, epoch))


def test_without_shuffle_rows_come_as_given() -> None:
    store = separable_store()
    rows = np.array([7, 3, 60, 3], dtype=np.int64)
    with ring_of(store, 3) as ring:
        loader = FeatureLoader(store.split("train"), rows, ring)
        assert [batch.rows.tolist() for batch in loader.epoch(4)] == [[7, 3, 60], [3]]


def test_a_resumed_epoch_gives_the_rest_and_reads_nothing_before_it() -> None:
    store = separable_store()
    with ring_of(store) as ring:
        loader = FeatureLoader(store.split("train"), ROWS, ring, seed=1, shuffle=True)
        whole = [batch.rows.tolist() for batch in loader.epoch(2)]
        reads = len(store.split("train").reads)
        rest = [batch.rows.tolist() for batch in loader.epoch(2, start=6)]
    assert rest == whole[6:]
    assert len(store.split("train").reads) - reads == 2 * len(rest)


class Blank:
    """A million rows that cost nothing to read."""

    rows = 10**6
    labels = np.zeros(rows, np.int32)
    status = np.ones(rows, np.uint8)
    source_index = np.arange(rows)
    views = np.zeros(rows, np.uint8)
    samples = ()
    raw_dtype: np.dtype[np.generic] = np.dtype("<f2")

    def read_into(self, *_: object) -> None:
        """Leave the buffer as it is."""

    def follow(self, *_: object) -> None:
        """Nothing is fetched ahead."""


def test_a_resume_works_out_no_window_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[int] = set()
    members = EpochOrder.members

    def noted(order: EpochOrder, number: int) -> np.ndarray:
        asked.add(number)
        return members(order, number)

    monkeypatch.setattr(EpochOrder, "members", noted)
    with ring_of(separable_store()) as ring:
        loader = FeatureLoader(Blank(), np.arange(10**6), ring, shuffle=True)
        found = next(loader.epoch(3, start=64_000)).rows
    assert asked == {1000}  # 64,000 batches of 8, windows of 512
    np.testing.assert_array_equal(found, epoch_order(loader.rows, 0, 3)[512_000:512_008])


def test_the_split_is_told_what_comes_once_nothing_else_is_read() -> None:
    store = separable_store()
    split = store.split("train")
    with ring_of(store) as ring:
        shuffled = FeatureLoader(split, ROWS, ring, seed=1, shuffle=True)
        next(shuffled.epoch(2, start=6))
        order, taps, start = split.followed[-1]
        assert order is not None
        np.testing.assert_array_equal(order.part(0, 77), epoch_order(ROWS, 1, 2))
        assert (taps, start) == ((1, 3), 48)
        next(FeatureLoader(split, ROWS, ring).epoch(0))
    assert split.followed[-1] == (None, (1, 3), 0)
    assert len(split.followed) == 2


def test_the_last_partial_batch_is_kept() -> None:
    store = separable_store()
    with ring_of(store) as ring:
        loader = FeatureLoader(store.split("train"), ROWS, ring, shuffle=True)
        sizes = [len(batch.labels) for batch in loader.epoch(0)]
    assert sizes == [8] * 9 + [5]
    assert loader.steps == len(sizes)


@pytest.mark.parametrize("dtype", get_args(StoreDtype))
def test_decoded_planes_are_the_stored_values_times_their_scales(dtype: StoreDtype) -> None:
    store = separable_store(dtype=dtype, exponents=(0, 0) if dtype == "int8" else (0, 3))
    want = store.split("train").features(store.exponents)
    with ring_on(store, (1, 3), RingOptions(8, CPU)) as ring:
        loader = FeatureLoader(store.split("train"), ROWS, ring)
        for batch in loader.epoch(0):
            planes = loader.decode(batch)
            assert planes.dtype == torch.float32
            np.testing.assert_array_equal(planes.numpy(), want[:, batch.rows])


def test_rows_outside_the_split_are_refused() -> None:
    store = separable_store()
    with ring_of(store) as ring, pytest.raises(InputError, match="outside the split's 90"):
        FeatureLoader(store.split("train"), np.array([90]), ring)


def test_the_memory_store_cuts_bfloat16_as_torch_reads_it() -> None:
    values = np.array([1.0, -2.5, 0.15625]).reshape(1, 1, 1, 3)
    raw = torch.from_numpy(raw_of(values, "bfloat16", (0,))[0].view("<i2"))
    assert raw.view(torch.bfloat16).flatten().tolist() == [1.0, -2.5, 0.15625]


def test_an_epoch_of_views_shows_every_sample_once_in_the_order_of_the_rows_it_drew() -> None:
    store = separable_store(views=3)
    split = store.split("train")
    seen = set()
    with ring_of(store) as ring:
        loader = FeatureLoader(split, np.arange(270), ring, seed=5, shuffle=True)
        assert (loader.samples, loader.steps) == (90, 12)
        for epoch in range(20):
            found = np.concatenate([batch.rows for batch in loader.epoch(epoch)])
            assert sorted(split.source_index[found]) == list(range(90))
            np.testing.assert_array_equal(found, epoch_order(np.sort(found), 5, epoch))
            seen |= set(found.tolist())
    # A row is missed in all of 20 epochs once in 3,300: of 270 at most a few.
    assert len(seen) > 262


def test_a_resumed_epoch_of_views_goes_on_with_the_same_ones() -> None:
    store = separable_store(views=3)
    with ring_of(store) as ring:
        loader = FeatureLoader(store.split("train"), np.arange(270), ring, seed=1, shuffle=True)
        whole = [batch.rows.tolist() for batch in loader.epoch(2)]
        rest = [batch.rows.tolist() for batch in loader.epoch(2, start=6)]
    assert rest == whole[6:]
