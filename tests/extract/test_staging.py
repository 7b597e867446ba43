"""Claims of losa.extract.staging."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from losa.extract.staging import Stage
from losa.features import StoreDtype
from losa.store.reader import RAW_DTYPES
from tests.store.build import small_plan

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_planes_arrive_on_the_host_in_the_stores_dtype(dtype: StoreDtype, device: str) -> None:
    plan = replace(small_plan(dtype=dtype), exponents=(0, 3))
    planes = [torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    stage = Stage(plan, torch.device(device))
    arrays, absmax = stage.encode([plane.to(device) for plane in planes]).wait()
    scales = (1.0, 0.125)
    for array, plane, scale in zip(arrays, planes, scales, strict=True):
        assert array.dtype == np.dtype(RAW_DTYPES[dtype])
        want = (plane * scale).to(getattr(torch, dtype))
        raw = want.view(torch.int16).numpy().view("<u2") if dtype == "bfloat16" else want.numpy()
        np.testing.assert_array_equal(array, raw)
    for row, plane, scale in zip(absmax, planes, scales, strict=True):
        np.testing.assert_allclose(row, plane.abs().amax((1, 2)) * scale, rtol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_pixels_reach_the_device_unchanged(device: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (2, 3, 4, 3), np.uint8)
    uploaded = Stage(small_plan(), torch.device(device)).upload(pixels)
    np.testing.assert_array_equal(uploaded.cpu().numpy(), pixels)
    assert uploaded.device.type == device
