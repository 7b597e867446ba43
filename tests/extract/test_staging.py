"""Claims of losa.extract.staging."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from losa.extract.staging import Stage
from losa.features import StoreDtype
from losa.store.layout import RAW_DTYPES
from tests.store.build import small_plan

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_planes_arrive_on_the_host_in_the_stores_dtype(dtype: StoreDtype, device: str) -> None:
    plan = replace(small_plan(dtype=dtype), exponents=(0, 3))
    planes = [torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    stage = Stage(plan, torch.device(device))
    host = stage.encode([plane.to(device) for plane in planes]).wait()
    assert host.scales is None
    scales = (1.0, 0.125)
    for array, plane, scale in zip(host.planes, planes, scales, strict=True):
        assert array.dtype == np.dtype(RAW_DTYPES[dtype])
        want = (plane * scale).to(getattr(torch, dtype))
        raw = want.view(torch.int16).numpy().view("<u2") if dtype == "bfloat16" else want.numpy()
        np.testing.assert_array_equal(array, raw)
    for row, plane, scale in zip(host.absmax, planes, scales, strict=True):
        np.testing.assert_allclose(row, plane.abs().amax((1, 2)) * scale, rtol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_int8_planes_arrive_with_the_scales_of_their_tokens(device: str) -> None:
    plan = small_plan(dtype="int8")
    planes = [torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    quantiser = np.random.default_rng(0).uniform(0.5, 2.0, (2, 2, 6)).astype("<f4")
    stage = Stage(plan, torch.device(device), quantiser)
    host = stage.encode([plane.to(device) for plane in planes]).wait()
    assert host.scales is not None
    for tap, plane in enumerate(planes):
        assert host.planes[tap].dtype == np.int8
        assert host.scales[tap].dtype == np.float16
        mean, channel = quantiser[tap]
        step = host.scales[tap].astype("<f4")[..., None] * channel
        error = np.abs(host.planes[tap] * step + mean - plane.numpy())
        assert np.all(error <= 0.501 * step)
        np.testing.assert_array_equal(host.absmax[tap], host.scales[tap].max(1))


@pytest.mark.parametrize("device", DEVICES)
def test_pixels_reach_the_device_unchanged(device: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (2, 3, 4, 3), np.uint8)
    uploaded = Stage(small_plan(), torch.device(device)).upload(pixels)
    np.testing.assert_array_equal(uploaded.cpu().numpy(), pixels)
    assert uploaded.device.type == device
