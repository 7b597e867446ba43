"""Claims of losa.extract.frozen: what all frozen forwards have in common."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from losa.errors import ResourceError
from losa.extract.frozen import Scaling, casting, compiling
from losa.extract.transforms import Preprocessing

CPU = torch.device("cpu")
RULES = Preprocessing((4, 4), 1.0, "center", "bicubic", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.mark.parametrize("shape", [(2, 4, 5, 3), (2, 3, 4, 5, 3)])
def test_pixels_of_images_and_clips_are_scaled_channel_by_channel(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    scaling = Scaling.on(CPU, replace(RULES, mean=mean, std=std))
    found = scaling(torch.from_numpy(pixels))
    for channel in range(3):
        expected = (pixels[..., channel] / 255 - mean[channel]) / std[channel]
        np.testing.assert_allclose(found[:, channel], expected, rtol=1e-5, atol=1e-6)
    assert found.is_contiguous()


def test_autocast_is_on_only_where_it_was_asked_for() -> None:
    for dtype in (None, torch.bfloat16):
        with casting(CPU, dtype):
            assert torch.is_autocast_enabled("cpu") == (dtype is not None)


def test_a_compiler_that_fails_is_told_in_one_line_and_other_errors_are_left_alone() -> None:
    from torch._dynamo.exc import TorchDynamoException

    with (
        pytest.raises(ResourceError, match=r"--compile: failed \(no luck\)"),
        compiling(is_compiled=True),
    ):
        raise TorchDynamoException("no\nluck")
    with pytest.raises(ValueError, match="mine"), compiling(is_compiled=True):
        raise ValueError("mine")
