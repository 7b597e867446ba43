from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from losa.adapt.checkpoint import load_adaptor
from losa.adapt.standardise import Standardise, checked_planes
from losa.adapt.train import adapt_on
from losa.config import AdaptConfig
from losa.errors import MismatchError
from losa.features import FeatureSpec, TokenGrid
from tests.adapt.memory_store import separable_store
from tests.oracles import side_network as oracle

SPEC = FeatureSpec("tiny", (1, 3), TokenGrid(2, 2, prefix=1), 6)


def statistics(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mean = rng.normal(size=(2, 6)).astype(np.float32)
    return mean, rng.uniform(0.5, 2.0, size=(2, 6)).astype(np.float32)


def test_planes_are_raw_until_statistics_are_loaded() -> None:
    plane = torch.randn(3, 5, 6)
    assert torch.equal(Standardise(SPEC)(plane, 1), plane)


def test_each_tap_and_channel_is_standardised_by_its_own_statistics() -> None:
    mean, std = statistics()
    standardise = Standardise(SPEC)
    standardise.load(mean, torch.from_numpy(std))
    planes = torch.randn(2, 3, 5, 6) * 4
    expected = oracle.standardise(planes.double().numpy(), mean.astype(float), std.astype(float))
    for position, plane in enumerate(planes):
        found = standardise(plane, position)
        np.testing.assert_allclose(found.numpy(), expected[position], atol=1e-5)


def test_by_tap_divides_a_tap_by_the_root_mean_square_of_its_deviations_and_subtracts_nothing() -> (
    None
):
    mean, std = statistics()
    standardise = Standardise(SPEC)
    standardise.load(mean, std)
    standardise.by_tap()
    planes = torch.randn(2, 3, 5, 6) * 4
    for position, plane in enumerate(planes):
        scale = np.sqrt(np.mean(std[position].astype(float) ** 2))
        expected = plane.double().numpy() / scale
        np.testing.assert_allclose(standardise(plane, position).numpy(), expected, atol=1e-5)


def test_read_only_statistics_of_a_store_are_copied() -> None:
    mean, std = statistics()
    mean.flags.writeable = std.flags.writeable = False
    standardise = Standardise(SPEC)
    standardise.load(mean, std)
    standardise.mean.zero_()
    assert mean.any()


def test_statistics_survive_in_the_state_dict() -> None:
    first, second = Standardise(SPEC), Standardise(SPEC)
    first.load(*statistics())
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.mean, first.mean)
    assert torch.equal(second.std, first.std)


def test_one_rounding_step_in_a_dead_channel_stays_small() -> None:
    mean, std = statistics()
    mean[:, 2], std[:, 2] = 3.0, 0.0
    standardise = Standardise(SPEC)
    standardise.load(mean, std)
    plane = torch.zeros(1, 5, 6)
    plane[..., 2] = 3.0 + 2.0**-9  # the next float16 after 3
    assert standardise(plane, 0)[..., 2].abs().max() < 5


def test_a_tap_whose_channels_are_all_dead_stays_finite() -> None:
    standardise = Standardise(SPEC)
    standardise.load(np.zeros((2, 6), np.float32), np.zeros((2, 6), np.float32))
    assert standardise(torch.ones(1, 5, 6), 0).isfinite().all()


@pytest.mark.parametrize(
    ("name", "shape", "value"),
    [("mean", (3, 6), 0.0), ("std", (2, 5), 1.0), ("mean", (2, 6), np.nan), ("std", (2, 6), -1.0)],
)
def test_statistics_of_other_taps_or_without_meaning_are_refused(
    name: str, shape: tuple[int, int], value: float
) -> None:
    good = dict(zip(("mean", "std"), statistics(), strict=True))
    standardise = Standardise(SPEC)
    with pytest.raises(MismatchError, match=f"calibration {name}"):
        standardise.load(**{**good, name: np.full(shape, value, np.float32)})
    assert torch.equal(standardise.std, torch.ones(2, 6))


def test_standardised_half_planes_are_computed_in_float32() -> None:
    mean, std = statistics()
    standardise = Standardise(SPEC)
    standardise.load(mean, std)
    plane = torch.randn(2, 5, 6).half()
    torch.testing.assert_close(standardise(plane, 0), standardise(plane.float(), 0))


def test_wrong_planes_are_named() -> None:
    good = torch.zeros(2, 3, 5, 6)
    assert len(checked_planes(good, SPEC)) == 2
    with pytest.raises(MismatchError, match="1 given for 2 taps"):
        checked_planes(good[:1], SPEC)
    with pytest.raises(MismatchError, match=r"plane of tap 1: has \[4, 6\].*\[5, 6\]"):
        checked_planes(good[:, :, 1:], SPEC)


def test_planes_are_not_copied() -> None:
    stacked = torch.zeros(2, 3, 5, 6)
    assert checked_planes(stacked, SPEC)[1].data_ptr() == stacked[1].data_ptr()


@pytest.mark.parametrize(
    ("adaptor", "asked", "kind"),
    [
        ("losa", "auto", "tap"),
        ("linear-all", "auto", "store"),
        ("lst", "auto", "tap"),
        ("losa", "store", "store"),
        ("linear-all", "tap", "tap"),
        ("losa", "raw", "raw"),
    ],
)
def test_losa_has_one_scale_a_tap_and_others_each_channels_own_unless_asked_otherwise(
    tmp_path: Path, adaptor: str, asked: str, kind: str
) -> None:
    store = separable_store()
    values: dict[str, Any] = {"adaptor": adaptor, "standardise": asked, "epochs": 1}
    adapt_on(store, AdaptConfig(out=tmp_path, device="cpu", **values))
    found = load_adaptor(tmp_path)[0].standardise
    known = store.calibration(store.spec.taps)
    rms = np.sqrt((known.std.astype(float) ** 2).mean(axis=1, keepdims=True))
    ones = np.ones_like(rms)
    scale = {"tap": ones * rms, "store": known.std, "raw": ones}[kind]
    mean = known.mean if kind == "store" else np.zeros_like(known.mean)
    np.testing.assert_allclose(found.std.numpy(), np.broadcast_to(scale, mean.shape), rtol=1e-5)
    assert np.array_equal(found.mean.numpy(), mean)
