"""The contract of all ways to read a store: the same bytes in the same order, the same errors."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from losa.errors import StoreError
from losa.features import Regime, StoreDtype
from losa.store import open_store
from losa.store.order import epoch_order
from tests.store.build import (
    features,
    samples,
    small_plan,
    small_store,
    statistics,
    token_scales,
)
from tests.store.rezarr import chunk_of, recompressed

TAPS = (1, 3)
TOKENS = "train/tokens/tap03"
DAMAGED_ROW = 9
DTYPES: tuple[StoreDtype, ...] = ("float16", "int8", "bfloat16", "float32")


def as_it_is(path: Path) -> Path:
    return path


def compressed(path: Path) -> Path:
    return recompressed(path, path.with_name("z.zarr"))


def exported(path: Path) -> Path:
    from losa.store.exchange import export_store

    export_store(path, path.with_name("s.h5"))
    return path.with_name("s.h5")


def in_zarrs_hands(path: Path, regime: Regime) -> Any:
    from zarr.storage import LocalStore

    return open_store(LocalStore(path, read_only=True), regime=regime)


def in_one_file(path: Path, regime: Regime) -> Any:
    from losa.store.h5store import open_h5

    return open_h5(path, regime=regime)


@dataclass(frozen=True)
class Way:
    """One way to the features of a store: how it lies there, and how it is opened."""

    regime: Regime
    place: Callable[[Path], Path] = as_it_is
    open: Callable[[Path, Regime], Any] = lambda path, regime: open_store(path, regime=regime)


WAYS = {
    **{regime: Way(regime) for regime in get_args(Regime)},
    "foreign, found out": Way("auto", compressed),
    "foreign, resident": Way("resident", compressed),
    "foreign, remote": Way("auto", open=in_zarrs_hands),
    "hdf5": Way("auto", exported, in_one_file),
    "hdf5, preadv": Way("preadv", exported, in_one_file),
    "hdf5, mmap": Way("mmap", exported, in_one_file),
    "hdf5, stream": Way("stream", exported, in_one_file),
}


Placed = Callable[[Way, StoreDtype], Path]


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Placed:
    """Where a store of a dtype lies as a way wants it; each is made once."""

    @cache
    def at(place: Callable[[Path], Path], dtype: StoreDtype) -> Path:
        path = tmp_path_factory.mktemp("regimes") / "s.zarr"
        return place(small_store(path, small_plan(dtype=dtype)))

    return lambda way, dtype: at(way.place, dtype)


def read(split: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows at both taps, and their scales."""
    out = np.zeros((2, len(rows), 5, 6), split.raw_dtype)
    scales = np.zeros((2, len(rows), 5), "<f2") if split.spec.scale_bytes else None
    split.read_into(rows, TAPS, out, scales)
    return out, scales


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", WAYS)
def test_four_threads_read_the_bytes_that_were_written_in_the_order_asked(
    placed: Placed, name: str, dtype: StoreDtype
) -> None:
    way, plan = WAYS[name], small_plan(dtype=dtype)
    store = way.open(placed(way, dtype), way.regime)
    split, tokens, scales = (
        store.split("train"),
        features(plan, "train"),
        token_scales(plan, "train"),
    )
    random = np.random.default_rng(0)

    def is_right(rows: np.ndarray) -> bool:
        planes, factors = read(split, rows)
        if (factors is None) != (scales is None):
            return False
        is_scaled = factors is None or scales is None or np.array_equal(factors, scales[:, rows])
        return is_scaled and np.array_equal(planes, tokens[:, rows])

    asked = [random.integers(0, 20, size) for size in (*range(1, 9), 20, 40, 1)]
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(is_right, asked))
    assert all(is_right(rows) for rows in asked[:3])
    assert split.samples == tuple(samples(plan)["train"])
    assert split.labels.tolist() == [split.samples[i].label for i in split.source_index]
    assert split.status.all()
    np.testing.assert_array_equal(store.calibration(TAPS).std, statistics(plan)["std"])


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("name", WAYS)
def test_an_epoch_of_training_is_the_same(placed: Placed, name: str, dtype: StoreDtype) -> None:
    torch = pytest.importorskip("torch", reason="the store's tests run without it too")

    from losa.adapt.loader import FeatureLoader
    from losa.adapt.partition import part_of
    from losa.adapt.resident import batches_on
    from losa.adapt.ring import RingOptions

    way, plan = WAYS[name], small_plan(dtype=dtype)
    store = way.open(placed(way, dtype), way.regime)
    part = part_of(store.split("train"), np.arange(1, 20))
    options = RingOptions(3, torch.device("cpu"), threads=4)
    with batches_on(store, TAPS, options, (part,), way.regime) as ring:
        loader = FeatureLoader(part.split, part.rows, ring, seed=2, shuffle=True)
        for epoch in (0, 1):
            order = epoch_order(part.rows, 2, epoch)
            for number, batch in enumerate(loader.epoch(epoch, start=epoch)):
                rows = order[3 * (number + epoch) :][:3]
                assert batch.rows.tolist() == rows.tolist()
                want = features(plan, "train")[:, rows].view(f"i{batch.features.itemsize}")
                found = batch.features.numpy().view(want.dtype)
                np.testing.assert_array_equal(found, want)
                scales = token_scales(plan, "train")
                assert (batch.scales is None) == (scales is None)
                if batch.scales is not None and scales is not None:
                    np.testing.assert_array_equal(batch.scales.numpy(), scales[:, rows])
                assert batch.labels.tolist() == part.split.labels[rows].tolist()
            assert number + epoch == 6


def gone(path: Path) -> None:
    path.unlink()


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [gone, flipped, cut])
@pytest.mark.parametrize("name", [name for name, way in WAYS.items() if way.place is not exported])
def test_a_shard_that_is_missing_or_damaged_is_an_error_that_names_its_array(
    placed: Placed, tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    way = WAYS[name]
    path = shutil.copytree(placed(way, "float16"), tmp_path / "s.zarr")
    damage(chunk_of(path, TOKENS, DAMAGED_ROW))
    split = way.open(path, way.regime).split("train")
    # What is sound is read all the same, and what is not is told every time.
    read(split, np.array([0, 19]))
    for _ in range(2):
        with pytest.raises(StoreError, match=TOKENS) as caught:
            read(split, np.arange(20))
        assert caught.value.exit_code == 4
        assert "\n" not in str(caught.value)
