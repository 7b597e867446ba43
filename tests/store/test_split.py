"""Claims of losa.store.split."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from losa.errors import StoreError
from losa.features import StoreDtype
from losa.store import open_store
from losa.store.order import EpochOrder
from losa.store.split import Verify
from tests.store.build import features, samples, small_plan, small_store, token_scales

TAPS = (1, 3)
SHARD = "train/tokens/tap03/c.1.0.0"
SCALES = "train/scale/tap03/c.1.0"


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_store(tmp_path_factory.mktemp("split") / "s.zarr")


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_store(tmp_path_factory.mktemp("split") / "i.zarr", small_plan(dtype="int8"))


@pytest.fixture
def store(sealed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sealed, tmp_path / "s.zarr"))


def read(path: Path, rows: list[int]) -> np.ndarray:
    reader = open_store(path).split("train")
    out = np.zeros((2, len(rows), 5, 6), reader.raw_dtype)
    reader.read_into(np.array(rows, dtype=np.int64), TAPS, out)
    return out


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


@settings(deadline=None)
@given(rows=st.lists(st.integers(0, 19), min_size=1, max_size=40))
def test_rows_come_in_the_order_asked_repeats_included(sealed: Path, rows: list[int]) -> None:
    np.testing.assert_array_equal(read(sealed, rows), features(small_plan(), "train")[:, rows])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_every_dtype_comes_back_bit_for_bit(tmp_path: Path, dtype: StoreDtype) -> None:
    plan = small_plan(dtype=dtype)
    path = small_store(tmp_path / "s.zarr", plan)
    np.testing.assert_array_equal(read(path, [19, 0]), features(plan, "train")[:, [19, 0]])


def test_one_tap_is_read_into_a_slice_of_a_larger_buffer(sealed: Path) -> None:
    out = np.zeros((3, 8, 5, 6), "<f2")
    rows = np.array([4, 2], dtype=np.int64)
    open_store(sealed).split("train").read_into(rows, (3,), out[1:2, 3:5])
    np.testing.assert_array_equal(out[1, 3:5], features(small_plan(), "train")[1, rows])
    assert not out[0].any()
    assert not out[1, :3].any()


@pytest.mark.parametrize("verify", ["first", "always", "never"])
def test_int8_records_come_with_the_scales_of_their_tokens(scaled: Path, verify: Verify) -> None:
    plan, rows = small_plan(dtype="int8"), np.array([19, 0, 9, 19])
    scales = token_scales(plan, "train")
    assert scales is not None
    reader = open_store(scaled, verify=verify).split("train")
    assert reader.raw_dtype == np.int8
    for _ in range(2):
        out, factors = np.zeros((2, 4, 5, 6), np.int8), np.zeros((2, 4, 5), np.float16)
        reader.read_into(rows, TAPS, out, factors)
        np.testing.assert_array_equal(out, features(plan, "train")[:, rows])
        np.testing.assert_array_equal(factors, scales[:, rows])


def test_scales_are_asked_for_when_and_only_when_there_are_some(sealed: Path, scaled: Path) -> None:
    rows, factors = np.arange(2), np.zeros((2, 2, 5), np.float16)
    out = np.zeros((2, 2, 5, 6), np.float16)
    with pytest.raises(AssertionError):
        open_store(scaled).split("train").read_into(rows, TAPS, out.astype(np.int8))
    with pytest.raises(AssertionError):
        open_store(sealed).split("train").read_into(rows, TAPS, out, factors)


def test_a_damaged_scale_is_as_bad_as_a_damaged_token(scaled: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(scaled, tmp_path / "s.zarr"))
    flip(path / SCALES)
    out, factors = np.zeros((2, 20, 5, 6), np.int8), np.zeros((2, 20, 5), np.float16)
    with pytest.raises(StoreError, match="row 8 does not match its checksum"):
        open_store(path).split("train").read_into(np.arange(20), TAPS, out, factors)


def test_threads_read_side_by_side_with_few_open_files(
    sealed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("losa.store.sealed.descriptor_limit", lambda: 1)
    reader = open_store(sealed).split("train")
    want = features(small_plan(), "train")

    def one(row: int) -> bool:
        out = np.zeros((2, 1, 5, 6), "<f2")
        reader.read_into(np.array([row]), TAPS, out)
        return np.array_equal(out[:, 0], want[:, row])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, list(range(20)) * 20))


def test_labels_and_samples_follow_source_index(sealed: Path) -> None:
    reader = open_store(sealed).split("val")
    listed = samples(small_plan())["val"]
    assert reader.samples == tuple(listed)
    assert reader.labels.tolist() == [listed[i].label for i in reader.source_index]


def test_a_second_read_does_not_compare_checksums_again(store: Path) -> None:
    reader = open_store(store).split("train")
    out = np.zeros((2, 20, 5, 6), "<f2")
    reader.read_into(np.arange(20), TAPS, out)
    flip(store / SHARD)
    reader.read_into(np.arange(20), TAPS, out)
    changed = features(small_plan(), "train").view(np.uint16) ^ out.view(np.uint16)
    assert np.flatnonzero(changed).tolist() == [(1 * 20 + 8) * 30]


def test_a_row_that_was_seen_is_not_compared_again_beside_one_that_was_not(store: Path) -> None:
    reader = open_store(store).split("train")
    out = np.zeros((2, 2, 5, 6), "<f2")
    reader.read_into(np.array([8, 8]), TAPS, out)
    flip(store / SHARD)
    reader.read_into(np.array([8, 9]), TAPS, out)
    with pytest.raises(StoreError, match="row 8 does not match"):
        open_store(store).split("train").read_into(np.array([8, 9]), TAPS, out)


def test_being_told_what_comes_next_changes_no_value(sealed: Path) -> None:
    reader = open_store(sealed).split("train")
    order = EpochOrder(np.arange(20), seed=0, epoch=0)
    for told in (order, None):
        reader.follow(told, TAPS, 0)
        out = np.zeros((2, 20, 5, 6), "<f2")
        reader.read_into(order.part(0, 20), TAPS, out)
        want = features(small_plan(), "train")[:, order.part(0, 20)]
        np.testing.assert_array_equal(out, want)


def test_every_read_compares_checksums_when_asked_to(store: Path) -> None:
    reader = open_store(store, verify="always").split("train")
    out = np.zeros((2, 20, 5, 6), "<f2")
    for _ in range(2):
        reader.read_into(np.arange(20), TAPS, out)
    flip(store / SHARD)
    with pytest.raises(StoreError, match="row 8 does not match its checksum"):
        reader.read_into(np.arange(20), TAPS, out)


def test_no_read_compares_checksums_when_asked_not_to(store: Path) -> None:
    flip(store / SHARD)
    shutil.rmtree(store / "train/check")
    reader = open_store(store, verify="never").split("train")
    out = np.zeros((2, 20, 5, 6), "<f2")
    reader.read_into(np.arange(20), TAPS, out)
    assert np.count_nonzero(out != features(small_plan(), "train")) <= 1
