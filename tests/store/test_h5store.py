"""Claims of losa.store.h5store: a file is read as the store it came from."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from losa.adapt.source import FeatureSource, RowReader
from losa.errors import ResourceError, StoreError, UsageError
from losa.features import Regime, StoreDtype
from losa.store import open_store
from losa.store.exchange import export_store
from losa.store.h5store import H5Store, open_h5
from losa.store.split import Verify
from tests.store.build import features, samples, small_plan, small_store, token_scales
from tests.store.h5build import (
    SKIPPED,
    canonical,
    changed,
    h5_file,
    holed_store,
    set_json,
)

TAPS = (1, 3)


def read(store: H5Store, rows: list[int], split: str = "train") -> np.ndarray:
    reader = store.split(split)
    out = np.zeros((2, len(rows), 5, 6), reader.raw_dtype)
    scales = np.zeros(out.shape[:-1], "<f2") if store.spec.scale_bytes else None
    reader.read_into(np.array(rows, dtype=np.int64), TAPS, out, scales)
    if scales is not None:
        whole = token_scales(store.plan, split)
        assert whole is not None
        np.testing.assert_array_equal(scales, whole[:, rows])
    return out


@pytest.fixture(name="path")
def fixture_path(tmp_path: Path) -> Path:
    return h5_file(tmp_path / "a.h5")


@pytest.mark.parametrize("verify", ["first", "always", "never"])
@pytest.mark.parametrize("dtype", ["float16", "int8", "bfloat16", "float32"])
def test_rows_come_bit_for_bit_in_the_order_asked(
    tmp_path: Path, dtype: StoreDtype, verify: Verify
) -> None:
    plan = small_plan(dtype=dtype)
    store = open_h5(h5_file(tmp_path / "a.h5", plan), verify=verify)
    for rows in ([19, 0, 3, 3], list(range(20)), [7, 19]):  # a second touch is mapped
        np.testing.assert_array_equal(read(store, rows), features(plan, "train")[:, rows])
    np.testing.assert_array_equal(read(store, [7], "val"), features(plan, "val")[:, [7]])


@pytest.mark.parametrize("regime", ["auto", "preadv", "mmap", "resident", "stream"])
def test_every_regime_of_raw_records_reads_the_same(path: Path, regime: Regime) -> None:
    store = open_h5(path, regime=regime)
    for rows in ([4, 17, 0], list(range(20)), [19, 4]):
        np.testing.assert_array_equal(read(store, rows), features(store.plan, "train")[:, rows])


def test_a_file_is_nothing_that_zarr_reads(path: Path) -> None:
    with pytest.raises(UsageError, match="foreign"):
        open_h5(path, regime="foreign")


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_file_says_what_the_store_says(tmp_path: Path, dtype: StoreDtype) -> None:
    store_path = holed_store(tmp_path / "a.zarr", small_plan(dtype=dtype))
    export_store(store_path, tmp_path / "a.h5")
    store, found = open_store(store_path), open_h5(tmp_path / "a.h5")
    assert isinstance(found, FeatureSource)
    for name in ("spec", "store_id", "splits", "classes", "plan"):
        assert getattr(found, name) == getattr(store, name)
    ours, theirs = found.calibration((3,)), store.calibration((3,))
    for name in (field.name for field in dataclasses.fields(ours)):
        np.testing.assert_equal(getattr(ours, name), getattr(theirs, name))
    for split in store.splits:
        left, right = found.split(split), store.split(split)
        assert isinstance(left, RowReader)
        assert left is found.split(split)
        assert (left.rows, left.raw_dtype) == (right.rows, right.raw_dtype)
        assert left.samples == right.samples == tuple(samples(store.plan)[split])
        for name in ("labels", "status", "source_index"):
            np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
        codes = {reason["row"]: reason["code"] for reason in found.skipped(split)}
        assert codes == SKIPPED[split]


def test_a_split_that_is_not_there_is_named(path: Path) -> None:
    with pytest.raises(StoreError, match="has no split 'test'; it has train, val"):
        open_h5(path).split("test")


def test_the_id_is_the_stores_or_one_of_the_part(tmp_path: Path) -> None:
    store = small_store(tmp_path / "s.zarr")
    source = open_store(store).store_id
    found = set()
    parts: list[tuple[str, list[str]]] = [
        ("all", ["train", "val"]),
        ("3", ["train", "val"]),
        ("all", ["val"]),
        ("1", ["val"]),
    ]
    for taps, splits in parts:
        out = tmp_path / f"{taps}{len(splits)}.h5"
        export_store(store, out, taps=taps, splits=splits)
        opened = open_h5(out)
        part = {"store_id": source, "taps": list(opened.spec.taps), "splits": splits}
        want = hashlib.sha256(canonical(part).encode()).hexdigest()
        is_whole = opened.origin.is_whole(opened.plan)
        assert opened.store_id == (source if is_whole else want)
        found.add(opened.store_id)
    assert len(found) == 4


def spoil(path: Path, name: str, row: int) -> None:
    """Flip a bit of a record."""
    with h5py.File(path) as file:
        item = file[name]
        place = item.id.get_offset() + row * (item.id.get_storage_size() // len(item))
    with path.open("r+b") as raw:
        raw.seek(place)
        byte = raw.read(1)[0]
        raw.seek(place)
        raw.write(bytes([byte ^ 16]))


@pytest.mark.parametrize("kind", ["tokens", "scale"])
def test_a_damaged_record_is_an_error_that_names_its_data_set_and_row(
    tmp_path: Path, kind: str
) -> None:
    path = h5_file(tmp_path / "a.h5", small_plan(dtype="int8"))
    spoil(path, f"train/{kind}/tap03", 11)
    store = open_h5(path)
    read(store, [10, 12])
    with pytest.raises(StoreError) as caught:
        read(store, [12, 11])
    assert caught.value.subject == f"{path}:/train/tokens/tap03"
    assert caught.value.what == "row 11 does not match its checksum"
    if kind == "tokens":
        read(open_h5(path, verify="never"), [1])


def test_always_sees_damage_that_came_after_the_first_touch(path: Path) -> None:
    first, always = open_h5(path), open_h5(path, verify="always")
    read(first, [5])
    read(always, [5])
    spoil(path, "train/tokens/tap01", 5)
    read(first, [5])
    with pytest.raises(StoreError, match="row 5 does not match"):
        read(always, [5])


def test_threads_read_side_by_side_through_one_file_that_lost_its_name(path: Path) -> None:
    store, want = open_h5(path), features(small_plan(), "train")
    path.unlink()

    def one(row: int) -> bool:
        return np.array_equal(read(store, [row])[:, 0], want[:, row])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, list(range(20)) * 10))


def test_a_lack_of_descriptors_is_an_error_of_the_machine(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_h5(path)

    def fail(_: int) -> int:
        raise OSError(24, os.strerror(24))

    monkeypatch.setattr("losa.store.shardfile.os.dup", fail)
    with pytest.raises(ResourceError, match="too many open files"):
        read(store, [0])


REASON = {"row": 3, "key": "a", "code": 2, "message": "gone"}


@pytest.mark.parametrize(
    "reasons",
    [
        {"val": []},
        {"train": {}, "val": []},
        {"train": [3], "val": []},
        {"train": [{"row": 3}], "val": []},
        {"train": [{**REASON, "row": True}], "val": []},
        {"train": [REASON], "val": []},
        {"train": [REASON, REASON], "val": []},
    ],
)
def test_reasons_that_do_not_fit_the_status_are_refused(path: Path, reasons: object) -> None:
    changed(path, set_json("skipped", reasons), sign=True)
    with pytest.raises(StoreError, match="does not say which rows of train were skipped"):
        open_h5(path)


@pytest.mark.parametrize(
    "source",
    [
        {},
        {"store_id": "x", "taps": [1], "splits": ["val"]},
        {"store_id": 3, "taps": [1], "splits": ["val"]},
        {"store_id": "0" * 64, "taps": 3, "splits": ["val"]},
    ],
)
def test_an_origin_that_is_none_is_refused(path: Path, source: object) -> None:
    changed(path, set_json("source", source), sign=True)
    with pytest.raises(StoreError, match="does not say which store it is of"):
        open_h5(path)


def put(name: str, value: object) -> Any:
    def act(file: Any) -> None:
        file[name][0] = value

    return act


def test_rows_that_are_no_order_of_the_samples_are_refused(path: Path) -> None:
    changed(path, put("train/sample/source_index", -1), sign=True)
    reader = open_h5(path).split("train")
    with pytest.raises(StoreError, match=r"/train/sample/source_index: is no order"):
        _ = reader.samples


def test_keys_that_are_no_utf8_are_refused(path: Path) -> None:
    changed(path, put("train/sample/key", b"\xff"), sign=True)
    with pytest.raises(StoreError, match=r"/train/sample/key: is not UTF-8"):
        _ = open_h5(path).split("train").samples


def test_a_tool_of_strangers_that_keeps_to_the_page_is_believed(path: Path) -> None:
    changed(path, put("train/sample/label", 2), sign=True)
    assert open_h5(path).split("train").labels[0] == 2
