"""The ring's claims: right bytes from few buffers, errors as they are, threads that end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from losa.adapt.loader import FeatureLoader
from losa.adapt.ring import Ring, RingOptions, ring_on
from losa.precision import decode
from tests.adapt.memory_store import separable_store

CPU = torch.device("cpu")


def batches_of(*sizes: int) -> Iterator[np.ndarray]:
    start = 0
    for size in sizes:
        yield np.arange(start, start + size, dtype=np.int64)
        start += size


def reading_threads() -> int:
    return sum(thread.name.startswith("losa-read") for thread in threading.enumerate())


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("prefetch", [1, 3])
def test_a_ring_gives_each_batch_its_own_rows_whatever_the_threads(
    threads: int, prefetch: int
) -> None:
    store = separable_store()
    split = store.split("train")
    with Ring(store.spec, RingOptions(8, CPU, threads, prefetch)) as ring:
        for batch in ring.batches(split, batches_of(8, 8, 8, 8, 8, 8, 8, 3)):
            np.testing.assert_array_equal(batch.features.numpy(), split.planes[:, batch.rows])
            np.testing.assert_array_equal(batch.labels.numpy(), split.labels[batch.rows])
            assert batch.features.is_contiguous()


@pytest.mark.parametrize("threads", [1, 5])
def test_int8_batches_bring_the_scales_of_their_tokens(threads: int) -> None:
    store = separable_store(dtype="int8")
    split = store.split("train")
    assert split.scales is not None
    with Ring(store.spec, RingOptions(8, CPU, threads)) as ring:
        for batch in ring.batches(split, batches_of(8, 8, 8, 3)):
            assert batch.scales is not None
            np.testing.assert_array_equal(batch.features.numpy(), split.planes[:, batch.rows])
            np.testing.assert_array_equal(batch.scales.numpy(), split.scales[:, batch.rows])


def test_a_ring_for_one_tap_decodes_with_that_taps_scales() -> None:
    store = separable_store(dtype="int8")
    split = store.split("train")
    with ring_on(store, (3,), RingOptions(8, CPU)) as ring:
        batch = next(ring.batches(split, batches_of(8)))
        found = decode(
            *(batch.features, "int8", ring.exponents),
            scales=batch.scales,
            quantiser=ring.quantiser,
        )
    want = split.features(store.exponents)[1:, :8]
    np.testing.assert_array_equal(found.numpy(), want)


def test_batches_live_in_prefetch_and_two_buffers_and_are_not_copied() -> None:
    store = separable_store()
    with Ring(store.spec, RingOptions(4, CPU, 2, prefetch=1)) as ring:
        order = batches_of(*[4] * 20)
        places = {b.features.data_ptr() for b in ring.batches(store.split("train"), order)}
    assert len(places) == 3


def test_a_batch_lives_until_the_next_one_is_asked_for() -> None:
    store = separable_store()
    with Ring(store.spec, RingOptions(4, CPU, 2, prefetch=1)) as ring:
        split = store.split("train")
        for number, batch in enumerate(ring.batches(split, batches_of(*[4] * 20))):
            ahead = min(number + 3, 20)
            while len(split.reads) < 2 * ahead:  # two taps a batch
                time.sleep(0.001)
            np.testing.assert_array_equal(batch.features.numpy(), split.planes[:, batch.rows])
            assert len(split.reads) == 2 * ahead


def test_only_the_taps_of_the_spec_are_read() -> None:
    store = separable_store()
    with Ring(store.spec.with_taps((3,)), RingOptions(8, CPU)) as ring:
        for batch in ring.batches(store.split("train"), batches_of(8, 8)):
            assert batch.features.shape[0] == 1
    assert set(store.split("train").reads) == {(3,)}


def test_an_error_in_a_thread_reaches_the_consumer_as_it_is_and_the_threads_end() -> None:
    store = separable_store()
    store.split("train").fail_at_row = 21
    before = reading_threads()
    with Ring(store.spec, RingOptions(8, CPU)) as ring:
        source = ring.batches(store.split("train"), batches_of(*[8] * 8))
        next(source)
        next(source)
        with pytest.raises(OSError, match="row 21 is gone"):
            next(source)
    assert reading_threads() == before


def test_a_ring_can_be_left_in_the_middle_and_read_again() -> None:
    store = separable_store()
    split = store.split("train")
    with Ring(store.spec, RingOptions(8, CPU)) as ring:
        first = ring.batches(split, batches_of(8, 8, 8))
        next(first)
        again = [b.features.clone() for b in ring.batches(split, batches_of(8, 8))]
        assert next(first, None) is None
    np.testing.assert_array_equal(torch.cat(again, dim=1).numpy(), split.planes[:, :16])


def test_a_buffer_is_released_when_its_batch_is_left_in_the_middle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    released: list[None] = []
    monkeypatch.setattr("losa.adapt.ring._Slot.release", lambda _: released.append(None))
    store = separable_store()
    with Ring(store.spec, RingOptions(8, CPU)) as ring:
        next(ring.batches(store.split("train"), batches_of(8, 8, 8)))
    assert len(released) == 1


def test_leaving_a_ring_by_an_exception_ends_its_threads() -> None:
    store = separable_store()
    before = reading_threads()

    def leave_early() -> None:
        with Ring(store.spec, RingOptions(8, CPU, threads=3)) as ring:
            for _ in ring.batches(store.split("train"), batches_of(*[8] * 8)):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave_early()
    assert reading_threads() == before


@pytest.mark.gpu
def test_batches_on_a_device_equal_the_stores_under_a_busy_stream() -> None:
    store = separable_store({"train": 640})
    split = store.split("train")
    device = torch.device("cuda", 0)
    with Ring(store.spec, RingOptions(8, device, 2, prefetch=1)) as ring:
        sums, busy = [], torch.randn(2048, 2048, device=device)
        for batch in ring.batches(split, batches_of(*[8] * 80)):
            busy = (busy @ busy).tanh()  # the copy of the next batch must not overtake this one
            sums.append(batch.features.float().sum() + 0 * busy.sum())
        found = torch.stack(sums).cpu().numpy()
    want = [split.planes[:, i : i + 8].astype("f4").sum() for i in range(0, 640, 8)]
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-3)


@pytest.mark.gpu
def test_scales_reach_a_device_with_their_batch() -> None:
    store = separable_store({"train": 64}, dtype="int8")
    split = store.split("train")
    with ring_on(store, (1, 3), RingOptions(8, torch.device("cuda", 0), 2, 1)) as ring:
        loader = FeatureLoader(split, np.arange(64), ring)
        found = torch.cat([loader.decode(batch).cpu() for batch in loader.epoch(0)], dim=1)
    np.testing.assert_array_equal(found.numpy(), split.features(store.exponents))


@pytest.mark.gpu
def test_a_batch_left_in_the_middle_is_not_overwritten_before_its_use_on_a_device() -> None:
    store = separable_store({"train": 640})
    split = store.split("train")
    device = torch.device("cuda", 0)
    with Ring(store.spec, RingOptions(8, device, 2, prefetch=1)) as ring:
        busy = torch.randn(4096, 4096, device=device)
        batch = next(ring.batches(split, batches_of(8, 8)))
        for _ in range(50):
            busy = (busy @ busy).tanh()
        left = batch.features.float().sum() + 0 * busy.sum()
        again = [b.features.clone() for b in ring.batches(split, batches_of(*[8] * 20))]
        found = torch.cat(again, dim=1).cpu().numpy()
    want = split.planes[:, :8].astype("f4").sum()
    np.testing.assert_allclose(float(left), want, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(found, split.planes[:, :160])
