"""Claims of losa.live.source."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from losa.adapt.source import FeatureSource, RowReader
from losa.errors import InputError, StoreError
from losa.extract.planning import gather_inputs
from losa.extract.run import extract
from losa.features import StoreDtype
from losa.live.source import RAW, LiveSource
from losa.store import open_store
from tests.extract.overflow import WHITE, always, in_autocast, overflow, with_white
from tests.extract.picture_folder import picture_folder, tiny_config


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[LiveSource, FeatureSource]:
    """The same settings live and stored: int8, two views of each train sample."""
    root = tmp_path_factory.mktemp("source")
    data = picture_folder(root / "pictures", {"train": 4, "val": 2})
    config = tiny_config(data, root / "s.zarr", store_dtype="int8", views=2, seed=5)
    extract(config)
    return LiveSource(gather_inputs(config, is_written=False)), open_store(config.store)


Both = tuple[LiveSource, FeatureSource]


def test_a_live_source_is_what_training_asks_of_a_store(both: Both) -> None:
    assert isinstance(both[0], FeatureSource)
    assert isinstance(both[0].split("train"), RowReader)


def test_columns_of_a_split_are_those_of_the_store(both: Both) -> None:
    for name in ("train", "val"):
        live, stored = (source.split(name) for source in both)
        assert live.rows == stored.rows
        assert live.samples == stored.samples
        assert live.raw_dtype == stored.raw_dtype
        for column in ("labels", "status", "source_index", "views"):
            np.testing.assert_array_equal(getattr(live, column), getattr(stored, column))


def test_plan_classes_and_calibration_are_those_of_the_store(both: Both) -> None:
    live, stored = both
    assert live.plan.to_json() == stored.plan.to_json()
    assert (live.classes, live.splits, live.spec) == (stored.classes, stored.splits, stored.spec)
    ours, theirs = live.calibration((11,)), stored.calibration((11,))
    for name in ("mean", "std", "absmax", "quantiser"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert ours.exponent == theirs.exponent


def test_the_identity_is_not_the_stores(both: Both) -> None:
    assert both[0].store_id != both[1].store_id


def test_rows_are_computed_as_they_are_stored(both: Both) -> None:
    rows = np.array([7, 0, 20], dtype=np.int64)
    found = []
    for source in both:
        k, l, d = source.spec.with_taps((11,)).shape  # noqa: E741 -- the axis letter
        split = source.split("train")
        out = np.empty((k, 3, l, d), dtype=split.raw_dtype)
        scales = np.empty((k, 3, l), dtype=np.float16)
        split.read_into(rows, (11,), out, scales)
        found.append((out.astype(np.int32), scales))
    # A batch of three is not computed in the order of a batch of four: a rounding may fall apart.
    assert np.abs(found[0][0] - found[1][0]).max() <= 1
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=2e-3)


def test_a_split_that_is_not_there_is_named(both: Both) -> None:
    with pytest.raises(StoreError, match="has no test split, only train, val"):
        both[0].split("test")


def test_a_row_that_cannot_be_read_is_never_zeros(tmp_path: Path) -> None:
    data = picture_folder(tmp_path / "pictures", {"train": 2})
    source = LiveSource(
        gather_inputs(tiny_config(data, tmp_path / "s.zarr", taps="11"), is_written=False)
    )
    for path in data.rglob("*.png"):
        path.write_bytes(b"")
    split = source.split("train")
    out = np.empty((1, 1, 5, 192), dtype=split.raw_dtype)
    with pytest.raises(StoreError, match=r"\.png"):
        split.read_into(np.zeros(1, np.int64), (11,), out)


def test_every_dtype_of_a_store_has_its_raw_one() -> None:
    assert set(RAW) == set(get_args(StoreDtype))


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_row_that_autocast_overflows_is_mended_as_extraction_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: StoreDtype
) -> None:
    data = with_white(picture_folder(tmp_path / "pictures", {"train": 3}))
    changes: dict[str, Any] = {"amp_dtype": "bfloat16", "store_dtype": dtype}
    config = tiny_config(data, tmp_path / "s.zarr", **changes)
    overflow(monkeypatch, torch.inf, in_autocast)
    extract(config)
    source = LiveSource(gather_inputs(config, is_written=False))
    planes = []
    for split in (source.split("train"), open_store(config.store).split("train")):
        raw, scales = np.zeros((2, 9, 5, 192), split.raw_dtype), np.zeros((2, 9, 5), np.float16)
        for first in (0, 4):  # the batches of extraction, but for one that is not full
            part = slice(first, first + 4)
            there = scales[:, part] if dtype == "int8" else None
            split.read_into(np.arange(9)[part], (2, 11), raw[:, part], there)
        planes.append((raw, scales))
    for ours, theirs in zip(*planes, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    overflow(monkeypatch, torch.nan, always)
    split = source.split("train")
    (row,) = (i for i in range(9) if split.samples[split.source_index[i]].path == WHITE)
    raw, scales = np.zeros((1, 1, 5, 192), split.raw_dtype), np.zeros((1, 1, 5), np.float16)
    with pytest.raises(InputError, match=rf"{WHITE}: its features at tap 11 do not fit {dtype}"):
        split.read_into(np.array([row]), (11,), raw, scales if dtype == "int8" else None)
