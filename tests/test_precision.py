"""Claims of losa.precision, against numpy's casts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from losa.features import STORE_DTYPES, StoreDtype
from losa.precision import decode, encode, exponent_for, magnitudes


def plane(scale: float = 1.0) -> torch.Tensor:
    values = np.random.default_rng(0).normal(size=(3, 5, 7)) * scale
    return torch.from_numpy(values.astype(np.float32))


def nearest_bfloat16(values: np.ndarray) -> np.ndarray:
    """The upper half of a float32, rounded to nearest, ties to even: integers only."""
    bits = values.astype("<f4").view("<u4").astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")


def test_float32_is_kept_bit_for_bit() -> None:
    assert torch.equal(encode(plane(), "float32"), plane())


def test_float16_is_numpys_cast() -> None:
    stored = encode(plane(), "float16").numpy()
    np.testing.assert_array_equal(stored, plane().numpy().astype(np.float16))


def test_bfloat16_bits_are_the_nearest_ones() -> None:
    stored = encode(plane(), "bfloat16")
    assert stored.dtype == torch.int16
    np.testing.assert_array_equal(stored.numpy().view("<u2"), nearest_bfloat16(plane().numpy()))


@pytest.mark.parametrize(
    ("dtype", "step"), [("float16", 2**-11), ("bfloat16", 2**-8), ("float32", 0.0)]
)
@pytest.mark.parametrize("exponent", [0, 3])
def test_decoding_gives_back_the_features_to_the_dtypes_precision(
    dtype: StoreDtype, step: float, exponent: int
) -> None:
    stored = encode(plane(100.0), dtype, exponent)
    back = decode(stored[None], dtype, (exponent,))[0]
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
    assert torch.equal(decode(encode(large, "float16", 5)[None], "float16", (5,))[0], large)


def test_planes_are_decoded_to_the_dtype_asked_for() -> None:
    raw = encode(plane(), "float16")[None]
    found = decode(raw, "float16", (2,), to=torch.bfloat16)
    assert found.dtype == torch.bfloat16


@given(st.floats(1e-3, 1e8))
def test_an_exponent_leaves_two_bits_of_head_room_and_wastes_none(absmax: float) -> None:
    exponent = exponent_for(absmax, "float16")
    stored = absmax * 2.0**-exponent
    assert stored <= 2.0**14
    assert exponent == 0 or stored > 2.0**13


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_only_float16_needs_an_exponent(dtype: StoreDtype) -> None:
    assert exponent_for(1e30, dtype) == 0


@pytest.mark.parametrize("dtype", STORE_DTYPES)
def test_magnitudes_are_each_samples_largest(dtype: StoreDtype) -> None:
    found = magnitudes(plane(), dtype, 1)
    want = np.abs(plane().numpy()).max(axis=(1, 2)) / 2
    np.testing.assert_allclose(found.numpy(), want, rtol=1e-6)


def test_what_a_dtype_cannot_hold_is_not_finite() -> None:
    planes = torch.zeros(4, 2, 2)
    planes[0, 0, 0], planes[1, 1, 1], planes[2, 0, 1] = 65_505.0, torch.nan, -torch.inf
    planes[3, 1, 0] = 65_504.0
    assert torch.isfinite(magnitudes(planes, "float16")).tolist() == [False, False, False, True]
    assert torch.isfinite(magnitudes(planes, "bfloat16")).tolist() == [True, False, False, True]
    assert torch.isfinite(magnitudes(planes, "float16", 1)).tolist() == [True, False, False, True]
