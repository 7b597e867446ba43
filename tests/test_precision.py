"""Claims of losa.precision, against numpy's casts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from losa.features import StoreDtype
from losa.precision import (
    Encoded,
    EncodedPlanes,
    channel_scales,
    decode,
    encode,
    exponent_for,
    magnitudes,
    rounded_to,
)

SCALES = torch.tensor([0.5, 3.0, 0.01, 1.0, 40.0, 2.0, 1.0])
MEAN = torch.tensor([0.0, -20.0, 1.0, 0.0, 300.0, 0.5, 0.0])
"""Dyadic, or the mean would cost the values that are put together with it their last bits."""
CASTS = ("float16", "bfloat16", "float32")


def plane(scale: float = 1.0) -> torch.Tensor:
    values = np.random.default_rng(0).normal(size=(3, 5, 7)) * scale
    return torch.from_numpy(values.astype(np.float32))


def nearest_bfloat16(values: np.ndarray) -> np.ndarray:
    """The upper half of a float32, rounded to nearest, ties to even: integers only."""
    bits = values.astype("<f4").view("<u4").astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")


def test_float32_is_kept_bit_for_bit() -> None:
    assert torch.equal(encode(plane(), "float32").values, plane())


def test_float16_is_numpys_cast() -> None:
    stored = encode(plane(), "float16").values.numpy()
    np.testing.assert_array_equal(stored, plane().numpy().astype(np.float16))


def test_bfloat16_bits_are_the_nearest_ones() -> None:
    stored = encode(plane(), "bfloat16").values
    assert stored.dtype == torch.int16
    np.testing.assert_array_equal(stored.numpy().view("<u2"), nearest_bfloat16(plane().numpy()))


@pytest.mark.parametrize(
    ("dtype", "step"), [("float16", 2**-11), ("bfloat16", 2**-8), ("float32", 0.0)]
)
@pytest.mark.parametrize("exponent", [0, 3])
def test_decoding_gives_back_the_features_to_the_dtypes_precision(
    dtype: StoreDtype, step: float, exponent: int
) -> None:
    back, _ = rounded_to(dtype, plane(100.0), exponent)
    assert back.dtype == torch.float32
    torch.testing.assert_close(back, plane(100.0), rtol=step, atol=1e-6)


def test_each_tap_is_decoded_by_its_own_exponent() -> None:
    raw = torch.ones(3, 2, 2, 2, dtype=torch.float16)
    planes = decode(raw, "float16", (0, 1, 4))
    assert planes[:, 0, 0, 0].tolist() == [1.0, 2.0, 16.0]


def test_scaling_by_the_exponent_loses_no_bit() -> None:
    # Values whose scaled form is still a normal float16: power-of-two scaling is then exact.
    plain = plane().half().float()
    large = plain * 2.0**5
    assert torch.equal(rounded_to("float16", large, 5)[0], large)


def test_planes_are_decoded_to_the_dtype_asked_for() -> None:
    raw = encode(plane(), "float16").values[None]
    found = decode(raw, "float16", (2,), to=torch.bfloat16)
    assert found.dtype == torch.bfloat16


@given(st.floats(1e-3, 1e8))
def test_an_exponent_leaves_two_bits_of_head_room_and_wastes_none(absmax: float) -> None:
    exponent = exponent_for(absmax, "float16")
    stored = absmax * 2.0**-exponent
    assert stored <= 2.0**14
    assert exponent == 0 or stored > 2.0**13


@pytest.mark.parametrize("dtype", ["int8", "bfloat16", "float32"])
def test_only_float16_needs_an_exponent(dtype: StoreDtype) -> None:
    assert exponent_for(1e30, dtype) == 0


@pytest.mark.parametrize("dtype", CASTS)
def test_magnitudes_are_each_samples_largest(dtype: StoreDtype) -> None:
    found = magnitudes(plane(), encode(plane(), dtype, 1), 1)
    want = np.abs(plane().numpy()).max(axis=(1, 2)) / 2
    np.testing.assert_allclose(found.numpy(), want, rtol=1e-6)


def test_what_a_dtype_cannot_hold_is_not_finite() -> None:
    planes = torch.zeros(4, 2, 2)
    planes[0, 0, 0], planes[1, 1, 1], planes[2, 0, 1] = 65_505.0, torch.nan, -torch.inf
    planes[3, 1, 0] = 65_504.0
    assert fits(planes, "float16") == [False, False, False, True]
    assert fits(planes, "bfloat16") == [True, False, False, True]
    assert fits(planes, "float16", 1) == [True, False, False, True]


def fits(planes: torch.Tensor, dtype: StoreDtype, exponent: int = 0) -> list[bool]:
    found = magnitudes(planes, encode(planes, dtype, exponent), exponent)
    return [math.isfinite(value) for value in found.tolist()]


def int8(values: torch.Tensor, channel: torch.Tensor = SCALES) -> Encoded:
    return encode(values, "int8", 0, torch.stack([MEAN, channel]))


def next_float16(values: np.ndarray) -> np.ndarray:
    """The smallest float16 that is no smaller, found by trying neighbours."""
    near = values.astype("<f2")
    return np.where(near.astype("<f8") < values, np.nextafter(near, np.float16(np.inf)), near)


def test_a_tokens_scale_is_the_smallest_float16_with_which_127_steps_reach_all_of_it() -> None:
    values = plane(7.0) * SCALES + MEAN
    found = int8(values)
    assert found.values.dtype == torch.int8
    assert found.scales is not None
    need = np.abs((values - MEAN).numpy().astype("<f8") / SCALES.numpy()).max(-1) / 127
    scales = found.scales.numpy()
    # Twice within float32's own rounding of the quotient; never a step of float16 too large.
    assert np.all(scales.astype("<f8") >= need * (1 - 2**-22))
    assert np.all(scales <= next_float16(need * (1 + 2**-22)))


def test_int8_is_the_nearest_of_its_tokens_steps() -> None:
    values = plane(7.0) * SCALES + MEAN
    found = int8(values)
    assert found.scales is not None
    step = found.scales.double()[..., None] * SCALES.double()
    want = np.rint(((values - MEAN).double() / step).numpy())
    assert np.abs(want).max() == 127
    np.testing.assert_array_equal(found.values.numpy(), want)


@given(
    st.lists(st.floats(-60, 60, width=32), min_size=7, max_size=7),
    st.floats(1e-3, 1e3),
)
def test_no_int8_feature_is_further_off_than_half_a_step(row: list[float], size: float) -> None:
    channel = (SCALES * size).float()
    values = torch.tensor(row)[None, None].float()
    found = int8(values, channel)
    assert found.scales is not None
    back, _ = rounded_to("int8", values, 0, torch.stack([MEAN, channel]))
    step = found.scales.double()[..., None] * channel.double()
    rounding = 2**-22 * (values.abs() + MEAN.abs()).double()
    assert bool(((back - values).abs() <= step * (0.5 + 1e-4) + rounding).all())
    assert int(found.values.abs().max()) <= 127


def test_int8_values_do_not_depend_on_the_company_a_sample_keeps() -> None:
    together = int8(plane(2.0))
    assert together.scales is not None
    for row in range(3):
        alone = int8(plane(2.0)[row : row + 1])
        assert alone.scales is not None
        assert torch.equal(alone.values[0], together.values[row])
        assert torch.equal(alone.scales[0], together.scales[row])


def test_a_token_of_means_is_zeros_and_a_tiny_one_is_not_lost_to_a_scale_of_zero() -> None:
    values = MEAN.expand(1, 2, 7).clone()
    values[0, 1, 5] += 2.0**-10 * SCALES[5]
    found = int8(values)
    assert found.scales is not None
    assert found.scales.tolist() == [[2.0**-14, 2.0**-14]]
    assert not found.values[0, 0].any()
    assert found.values[0, 1].tolist() == [0, 0, 0, 0, 0, 16, 0]


def test_what_int8_cannot_hold_is_not_finite() -> None:
    values = torch.ones(5, 2, 7)
    values[0, 0, 0], values[1, 1, 1], values[2, 0, 1] = torch.inf, torch.nan, -torch.inf
    values[3, 1, 3] = 65_600.0 * 127
    found = magnitudes(values, int8(values))
    assert found.isfinite().tolist() == [False, False, False, False, True]


def test_int8_of_a_half_precision_plane_is_that_of_its_values() -> None:
    half = plane(3.0).bfloat16()
    assert torch.equal(int8(half).values, int8(half.float()).values)


def test_int8_is_decoded_to_the_dtype_asked_for() -> None:
    found = int8(plane())
    assert found.scales is not None
    back = decode(
        *(found.values[None], "int8", (0,), torch.bfloat16),
        scales=found.scales[None],
        quantiser=torch.stack([MEAN, SCALES])[None],
    )
    assert back.dtype == torch.bfloat16


def test_a_channels_scale_is_its_deviation_and_never_negligible() -> None:
    std = np.array([[1.0, 0.5, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0]], "<f4")
    found = channel_scales(std)
    np.testing.assert_allclose(found[0], [1.0, 0.5, 1e-3 * 0.75, 2.0], rtol=1e-6)
    np.testing.assert_allclose(found[1], 1e-6)


def test_a_channel_that_is_the_same_everywhere_costs_nothing_and_comes_back() -> None:
    values = plane(2.0)
    values[..., 1] = 1000.0
    flat = values.reshape(-1, 7).numpy()
    std = torch.from_numpy(channel_scales(flat.std(0)[None])[0])
    quantiser = torch.stack([torch.from_numpy(flat.mean(0)), std])
    back, _ = rounded_to("int8", values, 0, quantiser)
    assert bool(back[..., 1].eq(1000.0).all())
    assert float((back - values).abs().max()) < 0.05 * flat.std()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int8"])
def test_encoded_planes_are_decoded_one_by_one_and_by_gain_and_shift(dtype: StoreDtype) -> None:
    generator = torch.Generator().manual_seed(4)
    quantiser = torch.rand(2, 2, 5, generator=generator) + 0.5
    exponents = (0, 2) if dtype == "float16" else (0, 0)
    each = [
        encode(torch.randn(3, 4, 5, generator=generator), dtype, exponent, quantum)
        for exponent, quantum in zip(exponents, quantiser, strict=True)
    ]
    is_int8 = dtype == "int8"
    ones = [torch.ones(3, 4)] * 2
    scales = torch.stack([found.scales for found in each if found.scales is not None] or ones)
    raw = torch.stack([found.values for found in each])
    found = EncodedPlanes(
        raw, dtype, exponents, scales if is_int8 else None, quantiser if is_int8 else None
    )
    whole = decode(
        *(raw, dtype, exponents),
        scales=found.token_scales,
        quantiser=found.quantiser,
    )
    assert torch.equal(torch.stack(list(found)), whole)
    assert torch.equal(found.decoded(), whole)
    values = torch.stack(found.values).float() * scales.float()[..., None]
    by_parts = values * found.gain()[:, None, None] + found.shift()[:, None, None]
    torch.testing.assert_close(by_parts, whole)
