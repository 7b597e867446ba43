"""Claims of losa.store.comparing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from losa.errors import StoreError
from losa.features import StoreDtype, TokenGrid
from losa.store import Plan, StoreWriter, comparing, create_store, open_store
from losa.store.comparing import compare_stores
from tests.store.build import (
    begin_store,
    features,
    fill_store,
    samples,
    small_plan,
    small_store,
    statistics,
    token_scales,
)


def write(path: Path, plan: Plan, values: dict[str, np.ndarray], skipped: tuple[int, ...]) -> Path:
    """A float32 store of the given features ``[k n l d]`` in row order, without some rows."""
    begin_store(path, plan)
    with StoreWriter(path, durable=False) as writer:
        for task in writer.claimed():
            status = np.ones(task.rows, np.uint8)
            with writer.shard(task) as shard:
                for row in skipped:
                    if task.first <= row < task.stop:
                        status[row - task.first] = 2
                        shard.skip(row, "key", 2, "missing")
                shard.write(list(values[task.split][:, task.first : task.stop]), status)
        writer.seal()
    return path


def true_units(plan: Plan, split: str) -> np.ndarray:
    """What a small store's records mean, by the equation of the format's page."""
    raw = features(plan, split)
    if plan.spec.dtype == "bfloat16":
        return (raw.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    values = raw.astype(np.float64)
    scales = token_scales(plan, split)
    if scales is not None:
        mean, channel = (statistics(plan)[name].astype(np.float64) for name in ("mean", "channel"))
        scaled = values * scales.astype(np.float64)[..., None]
        return scaled * channel[:, None, None] + mean[:, None, None]
    return values * np.exp2(plan.exponents)[:, None, None, None]


def test_a_store_is_identical_to_itself(tmp_path: Path) -> None:
    for dtype in ("float16", "int8"):
        plan = small_plan(dtype=dtype)
        paths = [small_store(tmp_path / f"{dtype}{name}.zarr", plan) for name in "ab"]
        found = compare_stores(*paths)
        assert (found.identical, found.within, found.plan, found.not_compared) == (
            True,
            True,
            (),
            (),
        )
        assert [(row.split, row.tap, row.rows, row.identical) for row in found.taps] == [
            ("train", 1, 20, 20),
            ("train", 3, 20, 20),
            ("val", 1, 8, 8),
            ("val", 3, 8, 8),
        ]


@pytest.mark.parametrize("dtype", ["float16", "int8", "bfloat16"])
def test_stores_of_different_dtypes_are_compared_in_true_units(
    tmp_path: Path, dtype: StoreDtype
) -> None:
    plan, other = small_plan(dtype="float32"), small_plan(dtype=dtype)
    if dtype == "float16":
        other = replace(other, exponents=(0, 3))
    left, right = (small_store(tmp_path / f"{i}.zarr", p) for i, p in enumerate((plan, other)))
    found = compare_stores(left, right, rtol=1e-4)
    assert not found.identical
    assert not found.within
    assert "identity.features.dtype: float32 / " + dtype in found.plan
    for number, row in enumerate(found.taps[:2]):
        a, b = true_units(plan, "train")[number], true_units(other, "train")[number]
        assert row.max_abs == pytest.approx(np.abs(a - b).max())
        l2 = np.linalg.norm((a - b).ravel()) / np.linalg.norm(a.ravel())
        assert row.relative_l2 == pytest.approx(l2)
        dots = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
        assert row.least_cosine == pytest.approx(dots.min())
        assert row.identical == (a == b).all(axis=(1, 2)).sum()


def test_within_is_told_by_the_worst_tap(tmp_path: Path) -> None:
    plan, other = small_plan(dtype="float32"), small_plan(dtype="bfloat16")
    left, right = (small_store(tmp_path / f"{i}.zarr", p) for i, p in enumerate((plan, other)))
    worst = max(row.relative_l2 for row in compare_stores(left, right).taps)
    assert compare_stores(left, right, rtol=worst).within
    assert not compare_stores(left, right, rtol=worst * 0.999).within


def test_rows_are_matched_by_source_index(tmp_path: Path) -> None:
    plan = small_plan({"train": 20}, "float32")
    shuffled = replace(plan, order_seed=7)
    left = small_store(tmp_path / "a.zarr", plan)
    begin_store(tmp_path / "probe.zarr", shuffled)
    raw = features(plan, "train")
    order = open_store(left).split("train").source_index
    probe = np.fromfile(tmp_path / "probe.zarr/train/sample/source_index/c.0", "<i8")
    assert not np.array_equal(order, probe)
    by_source = np.empty_like(raw)
    by_source[:, order] = raw
    right = write(tmp_path / "b.zarr", shuffled, {"train": by_source[:, probe]}, ())
    found = compare_stores(left, right)
    assert [row.identical for row in found.taps] == [20, 20]
    assert found.within
    assert found.plan == ("identity.order_seed: 0 / 7",)
    assert not found.identical


def test_only_rows_that_hold_features_in_both_are_compared(tmp_path: Path) -> None:
    plan = small_plan({"train": 20}, "float32")
    values = {"train": features(plan, "train")}
    left = write(tmp_path / "a.zarr", plan, values, (3,))
    right = write(tmp_path / "b.zarr", plan, values, (5,))
    found = compare_stores(left, right, rtol=1.0)
    assert [(row.rows, row.identical) for row in found.taps] == [(18, 18)] * 2
    assert (found.identical, found.within) == (False, False)
    assert found.not_compared == ("train: other rows were skipped",)


def test_tokens_of_zeros_have_cosines_and_distances_too(tmp_path: Path) -> None:
    plan = small_plan({"train": 8}, "float32")
    zeros = np.zeros_like(features(plan, "train"))
    left = write(tmp_path / "a.zarr", plan, {"train": zeros}, ())
    one = zeros.copy()
    one[1, 2, 3, 4] = 2.0
    right = write(tmp_path / "b.zarr", plan, {"train": one}, ())
    same, other = compare_stores(left, right).taps
    assert (same.max_abs, same.relative_l2, same.least_cosine) == (0.0, 0.0, 1.0)
    assert (other.max_abs, other.relative_l2, other.least_cosine) == (2.0, 1.0, 0.0)


def test_only_common_taps_and_splits_are_compared(tmp_path: Path) -> None:
    plan = small_plan()
    fewer = replace(small_plan({"train": 20, "test": 8}), exponents=(0,))
    fewer = replace(fewer, spec=fewer.spec.with_taps((3,)))
    begin_store(tmp_path / "b.zarr", fewer)
    left, right = small_store(tmp_path / "a.zarr", plan), tmp_path / "b.zarr"
    values = {name: features(plan, "train")[1:] for name in ("train", "test")}
    with StoreWriter(right, durable=False) as writer:
        for task in writer.claimed():
            with writer.shard(task) as shard:
                rows = values[task.split][:, task.first : task.stop]
                shard.write(list(rows), np.ones(task.rows, np.uint8))
        writer.seal()
    found = compare_stores(left, right)
    assert [(row.split, row.tap, row.identical) for row in found.taps] == [("train", 3, 20)]
    assert [line.partition(":")[0] for line in found.not_compared] == ["val", "test"]
    assert not found.identical


def test_stores_of_other_tokens_have_nothing_in_common(tmp_path: Path) -> None:
    plan = small_plan()
    other = replace(plan, spec=replace(plan.spec, grid=TokenGrid(1, 1, prefix=1)))
    left, right = (small_store(tmp_path / f"{i}.zarr", p) for i, p in enumerate((plan, other)))
    found = compare_stores(left, right, rtol=1.0)
    assert (found.taps, found.identical, found.within) == ((), False, False)


def test_blocks_do_not_change_what_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = small_store(tmp_path / "a.zarr", small_plan())
    right = small_store(tmp_path / "b.zarr", small_plan(dtype="bfloat16"))
    told: list[tuple[int, int]] = []
    whole = compare_stores(left, right).to_json()
    monkeypatch.setattr(comparing, "BLOCK_BYTES", 3 * 5 * 6 * 8)
    parts = compare_stores(left, right, progress=lambda *step: told.append(step)).to_json()
    assert parts["taps"] == [pytest.approx(row) for row in whole["taps"]]
    assert told[-1] == (28 * 2 * 60, 28 * 2 * 60)
    assert len(told) == 2 * (7 + 3)


def test_damage_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    left, right = (small_store(tmp_path / f"{name}.zarr") for name in "ab")
    file = right / "train/tokens/tap03/c.1.0.0"
    data = bytearray(file.read_bytes())
    data[7] ^= 8
    file.write_bytes(data)
    with pytest.raises(StoreError, match=r"b\.zarr/train/tokens/tap03/c\.1\.0\.0"):
        compare_stores(left, right)


def test_other_statistics_are_a_difference(tmp_path: Path) -> None:
    plan = small_plan()
    left = small_store(tmp_path / "a.zarr", plan)
    right = tmp_path / "b.zarr"
    other = statistics(plan) | {"std": 5 * statistics(plan)["std"]}
    create_store(right, plan, samples(plan), other, durable=False)
    fill_store(right, plan)
    found = compare_stores(left, right)
    assert not found.identical
    assert found.within
    assert found.plan == ("calib/tap01/std: differs", "calib/tap03/std: differs")
