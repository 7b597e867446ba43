"""Claims of losa.extract.calibrate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from losa.errors import InputError, StoreError
from losa.extract import calibrate
from losa.extract.calibrate import Calibrator, Statistics, stored_quantiser
from losa.features import StoreDtype
from losa.store.layout import spare_object, statistic_object
from tests.store.build import begin_store, small_plan, statistics


@pytest.mark.parametrize("chunk", [1, 24, 1 << 20])
def test_statistics_merged_over_batches_equal_numpys_over_everything(
    monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(calibrate, "CHUNK", chunk)
    draw = np.random.default_rng(0)
    everything = (draw.normal(300.0, 2.0, (2, 11, 3, 4))).astype(np.float32)
    calibrator = Calibrator(2, 4)
    for start, stop in ((0, 4), (4, 8), (8, 11)):
        planes = [torch.from_numpy(everything[tap, start:stop]) for tap in range(2)]
        calibrator.add(planes, torch.ones(stop - start, dtype=torch.bool))
    found = calibrator.statistics()
    tokens = everything.astype(np.float64).reshape(2, -1, 4)
    np.testing.assert_allclose(found.mean, tokens.mean(1), rtol=1e-6)
    np.testing.assert_allclose(found.std, tokens.std(1), rtol=1e-6)
    np.testing.assert_array_equal(found.absmax, np.abs(everything).max((1, 2)))


def test_what_is_copied_for_the_statistics_is_bounded_whatever_the_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copied: list[int] = []
    merge = calibrate._merged

    def spy(before: Any, count: int, tokens: torch.Tensor) -> Any:
        copied.append(tokens.numel())
        return merge(before, count, tokens)

    monkeypatch.setattr(calibrate, "_merged", spy)
    monkeypatch.setattr(calibrate, "CHUNK", 30)
    Calibrator(1, 4).add([torch.zeros(9, 3, 4)], torch.ones(9, dtype=torch.bool))
    assert copied == [24, 24, 24, 24, 12]


def test_unreadable_samples_are_left_out() -> None:
    plane = torch.ones(3, 2, 4)
    plane[1] = 1e9
    calibrator = Calibrator(1, 4)
    calibrator.add([plane], torch.tensor([True, False, True]))
    calibrator.add([plane], torch.tensor([False, False, False]))
    assert calibrator.statistics().absmax.max() == 1.0


def test_nothing_readable_is_an_error() -> None:
    with pytest.raises(InputError, match="no sample could be read"):
        Calibrator(1, 4).statistics()


def test_features_that_are_not_finite_are_an_error() -> None:
    calibrator = Calibrator(1, 4)
    calibrator.add([torch.full((1, 2, 4), torch.inf)], torch.ones(1, dtype=torch.bool))
    with pytest.raises(InputError, match="not finite"):
        calibrator.statistics()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_only_int8_has_channel_scales(dtype: StoreDtype, tmp_path: Path) -> None:
    found = Statistics(*np.ones((3, 1, 4), "<f4"))
    assert set(found.arrays(dtype)) == {"mean", "std", "absmax"}
    assert set(found.arrays("int8")) == {"mean", "std", "absmax", "channel"}
    np.testing.assert_array_equal(found.arrays("int8")["channel"], [[1.0] * 4])
    assert stored_quantiser(tmp_path, small_plan(dtype=dtype).spec) is None


def test_channel_scales_are_read_from_a_store_that_is_not_sealed(tmp_path: Path) -> None:
    plan = small_plan(dtype="int8")
    begin_store(tmp_path / "s.zarr", plan)
    found = stored_quantiser(tmp_path / "s.zarr", plan.spec)
    assert found is not None
    np.testing.assert_array_equal(found[:, 0], statistics(plan)["mean"])
    np.testing.assert_array_equal(found[:, 1], statistics(plan)["channel"])


@pytest.mark.parametrize("damage", [b"", bytes(24)])
@pytest.mark.parametrize("is_spare", [True, False])
def test_channel_scales_that_a_power_cut_left_are_refused_by_name(
    tmp_path: Path, damage: bytes, *, is_spare: bool
) -> None:
    plan = small_plan(dtype="int8")
    begin_store(tmp_path / "s.zarr", plan)
    name = statistic_object(3, "channel")
    (tmp_path / "s.zarr" / (spare_object(name) if is_spare else name)).write_bytes(damage)
    with pytest.raises(StoreError, match=r"calib/tap03/channel/c\.0: is not what its spare"):
        stored_quantiser(tmp_path / "s.zarr", plan.spec)
