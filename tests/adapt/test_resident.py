"""Claims of losa.adapt.resident: read once, gathered ever after, and only where it fits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from losa.adapt.loader import FeatureLoader
from losa.adapt.partition import Part, part_of
from losa.adapt.resident import Resident, batches_on, free_bytes
from losa.adapt.ring import BatchSource, FeatureBatch, Ring, RingOptions
from losa.adapt.train import adapt_on
from losa.config import AdaptConfig
from losa.errors import ResourceError
from losa.features import Regime, StoreDtype
from tests.adapt.memory_store import MemorySplit, MemoryStore, separable_store
from tests.adapt.test_ring import batches_of, reading_threads

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)
TAPS = (1, 3)


def resident_on(
    store: MemoryStore, *parts: Part, taps: tuple[int, ...] = TAPS, batch_size: int = 8
) -> Resident:
    options = RingOptions(batch_size, CPU, threads=3)
    found = batches_on(store, taps, options, parts, "resident")
    assert isinstance(found, Resident)
    return found


def assert_stored(batch: FeatureBatch, split: MemorySplit, taps: tuple[int, ...] = TAPS) -> None:
    """A batch is what the split holds of its rows."""
    chosen = [split.spec.taps.index(tap) for tap in taps]
    planes = split.planes[chosen][:, batch.rows]
    np.testing.assert_array_equal(batch.features.cpu().numpy().view(planes.dtype), planes)
    assert batch.labels.tolist() == split.labels[batch.rows].tolist()
    assert (batch.scales is None) == (split.scales is None)
    if batch.scales is not None and split.scales is not None:
        scales = split.scales[chosen][:, batch.rows]
        np.testing.assert_array_equal(batch.scales.cpu().numpy(), scales)


@pytest.mark.parametrize("dtype", get_args(StoreDtype))
@pytest.mark.parametrize("taps", [(1, 3), (3,)])
def test_every_epoch_is_gathered_from_what_was_read_once(
    dtype: StoreDtype, taps: tuple[int, ...]
) -> None:
    store = separable_store(dtype=dtype)
    split = store.split("train")
    part = part_of(split, np.arange(3, 80))
    with resident_on(store, part, taps=taps) as resident:
        loader = FeatureLoader(split, part.rows, resident, seed=5, shuffle=True)
        loader.epoch(0)
        reads = len(split.reads)
        for epoch in range(3):
            seen = []
            for batch in loader.epoch(epoch):
                assert_stored(batch, split, taps)
                seen += batch.rows.tolist()
            assert sorted(seen) == part.rows.tolist()
    assert len(split.reads) == reads
    assert {tap for read in split.reads for tap in read} == set(taps)


def test_two_parts_of_one_split_are_read_as_one() -> None:
    store = separable_store()
    split = store.split("train")
    rows = np.arange(90)
    parts = part_of(split, rows[::3]), part_of(split, rows[1::3])
    with resident_on(store, *parts, batch_size=60) as resident:
        for part in parts:
            for batch in FeatureLoader(split, part.rows, resident).epoch(0):
                assert_stored(batch, split)
    # One batch of both, whose taps are read by three threads.
    assert len(split.reads) == 2 * 2


def test_rows_may_come_in_any_order_and_more_than_once() -> None:
    store = separable_store()
    split = store.split("train")
    part = part_of(split, np.arange(10, 40))
    asked = np.array([39, 10, 10, 25])
    with resident_on(store, part, batch_size=3) as resident:
        found = list(resident.batches(split, iter([asked[:3]])))
        assert found[0].rows.tolist() == [39, 10, 10]
        assert_stored(found[0], split)


def test_what_is_read_once_comes_through_the_ring() -> None:
    store = separable_store()
    train, test = store.split("train"), store.split("test")
    with resident_on(store, part_of(train)) as resident:
        loader = FeatureLoader(test, np.arange(30), resident)
        for _ in range(2):
            for batch in loader.epoch(0):
                assert_stored(batch, test)
        assert len(test.reads) == 2 * 2 * 2 * 4
        assert not train.reads


def test_the_batches_asked_for_before_end() -> None:
    store = separable_store()
    split = store.split("train")
    with resident_on(store, part_of(split)) as resident:
        first = resident.batches(split, batches_of(8, 8, 8))
        next(first)
        assert next(resident.batches(split, batches_of(8))).rows.tolist() == list(range(8))
        assert next(first, None) is None


def test_batches_live_in_one_buffer() -> None:
    store = separable_store()
    split = store.split("train")
    with resident_on(store, part_of(split)) as resident:
        places = {b.features.data_ptr() for b in resident.batches(split, batches_of(8, 8, 5))}
    assert len(places) == 1


def test_an_error_of_the_store_is_raised_as_it_is_and_threads_end() -> None:
    store = separable_store()
    split, before = store.split("train"), reading_threads()
    split.fail_at_row = 21
    with resident_on(store, part_of(split)) as resident:
        for _ in range(2):
            with pytest.raises(OSError, match="row 21 is gone"):
                resident.batches(split, batches_of(8))
    assert reading_threads() == before


def test_closing_it_before_it_is_used_ends_its_threads() -> None:
    before = reading_threads()
    store = separable_store()
    resident_on(store, part_of(store.split("train"))).close()
    assert reading_threads() == before


def test_a_ring_and_rows_in_memory_are_both_what_gives_batches() -> None:
    store = separable_store()
    with resident_on(store, part_of(store.split("train"))) as resident:
        assert isinstance(resident, BatchSource)
    with Ring(store.spec, RingOptions(8, CPU)) as ring:
        assert isinstance(ring, BatchSource)


@pytest.mark.parametrize(("dtype", "views"), [("float16", 1), ("int8", 1), ("float16", 3)])
def test_training_gives_the_same_weights_in_every_regime(
    tmp_path: Path, dtype: StoreDtype, views: int
) -> None:
    found = []
    for regime in ("auto", "resident"):
        store = separable_store({"train": 60, "test": 20}, dtype=dtype, noise=3.0, views=views)
        out = tmp_path / regime
        config = AdaptConfig(out=out, device="cpu", rank=2, epochs=3, mixup=0.2)
        report = adapt_on(store, config.model_copy(update={"read": regime}))
        weights = (out / "best.safetensors").read_bytes()
        found.append((report.metrics, (out / "metrics.jsonl").read_bytes(), weights))
    assert found[0] == found[1]


@pytest.mark.parametrize("regime", ["auto", "preadv", "mmap", "stream", "foreign"])
def test_on_a_cpu_the_systems_cache_is_left_to_do_it(regime: Regime) -> None:
    store = separable_store()
    parts = (part_of(store.split("train")),)
    with batches_on(store, TAPS, RingOptions(8, CPU), parts, regime) as found:
        assert isinstance(found, Ring)


def need_of(store: MemoryStore, rows: int) -> int:
    return rows * store.spec.sample_bytes


@pytest.mark.parametrize(
    ("regime", "times_free", "is_resident"),
    [("auto", 2.0, True), ("auto", 1.9, False), ("resident", 1.0, True)],
)
def test_rows_move_to_a_device_if_they_fit_its_memory(
    monkeypatch: pytest.MonkeyPatch, regime: Regime, times_free: float, is_resident: bool
) -> None:
    store = separable_store()
    parts = part_of(store.split("train"), np.arange(40)), part_of(store.split("val"))
    free = int(need_of(store, 70) * times_free)
    monkeypatch.setattr("losa.adapt.resident.free_bytes", lambda _: free)
    # No device is needed to decide.
    options = RingOptions(8, CUDA)
    made: list[str] = []
    monkeypatch.setattr("losa.adapt.resident.ring_on", lambda *_: FakeRing(store, options))
    monkeypatch.setattr("losa.adapt.resident.Resident", lambda *_: made.append("resident"))
    batches_on(store, TAPS, options, parts, regime)
    assert bool(made) == is_resident


class FakeRing:
    """A ring of which only the spec is looked at, and whether it was closed."""

    closed = 0

    def __init__(self, store: MemoryStore, options: RingOptions) -> None:
        self.spec = store.spec.with_taps(TAPS)
        self.options = options

    def close(self) -> None:
        FakeRing.closed += 1


def test_what_does_not_fit_is_refused_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = separable_store()
    before = reading_threads()
    need = need_of(store, 90)
    monkeypatch.setattr("losa.adapt.resident.free_bytes", lambda _: need - 1)
    message = f"--read: resident needs {need} bytes on cpu, of which {need - 1} are free"
    with pytest.raises(ResourceError, match=message):
        resident_on(store, part_of(store.split("train")))
    assert not store.split("train").reads
    assert reading_threads() == before


def test_memory_that_is_not_given_after_all_is_an_error_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = separable_store()

    def refuse(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("no")

    with resident_on(store, part_of(store.split("train"))) as resident:
        monkeypatch.setattr(torch, "empty", refuse)
        with pytest.raises(ResourceError, match="there is no memory for 90 rows on cpu; give"):
            resident.batches(store.split("train"), batches_of(8))


def test_free_memory_is_what_the_system_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert free_bytes(CPU) > 2**20
    table = tmp_path / "meminfo"
    table.write_text("MemTotal: 9 kB\nMemAvailable:       7 kB\n")
    monkeypatch.setattr("losa.adapt.resident.MEMORY", table)
    monkeypatch.setattr("losa.adapt.resident.GROUPS", tmp_path)
    assert free_bytes(CPU) == 7 * 1024


@pytest.mark.parametrize(
    ("files", "want"),
    [
        ({"max": "1000", "current": "900", "stat": "anon 850\ninactive_file 50\n"}, 150),
        ({"max": "1000", "current": "1200", "stat": ""}, 0),
        ({"max": "9000", "current": "900", "stat": ""}, 7 * 1024),
        ({"max": "max", "current": "900", "stat": ""}, 7 * 1024),
        ({"max": "1000"}, 7 * 1024),
        ({"limit_in_bytes": "1000", "usage_in_bytes": "900", "stat": "total_inactive_file 5"}, 105),
        ({"limit_in_bytes": str(2**63 - 4096), "usage_in_bytes": "900", "stat": ""}, 7 * 1024),
    ],
)
def test_a_containers_limit_counts_too_without_what_is_only_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, str], want: int
) -> None:
    (tmp_path / "meminfo").write_text("MemAvailable: 7 kB\n")
    folder = tmp_path / "memory" if "limit_in_bytes" in files else tmp_path
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"memory.{name}").write_text(text)
    monkeypatch.setattr("losa.adapt.resident.MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr("losa.adapt.resident.GROUPS", tmp_path)
    assert free_bytes(CPU) == want


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float16", "int8", "bfloat16"])
def test_on_a_device_batches_are_gathered_without_waiting_for_it(dtype: StoreDtype) -> None:
    store = separable_store({"train": 640}, dtype=dtype)
    split = store.split("train")
    part = part_of(split)
    with batches_on(store, TAPS, RingOptions(8, CUDA), (part,), "auto") as resident:
        assert isinstance(resident, Resident)
        loader = FeatureLoader(split, part.rows, resident, shuffle=True)
        for batch in loader.epoch(0):
            assert batch.features.is_cuda
            assert_stored(batch, split)
        for batch in unwatched(loader.epoch(1)):
            assert len(batch.rows) == 8


def unwatched(batches: Iterator[FeatureBatch]) -> Iterator[FeatureBatch]:
    """Batches, each of which must come without the host's waiting for the device."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield from batches
    finally:
        torch.cuda.set_sync_debug_mode("default")
