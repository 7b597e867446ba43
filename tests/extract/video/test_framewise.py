"""Claims of losa.extract.video.framewise: every frame as the image transformer sees it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from losa.extract.backbones import Backbone, BackboneRequest, build_backbone
from losa.extract.sampling import ClipSampling
from losa.extract.video.framewise import FrameBackbone
from losa.extract.weights import tensors_digest
from losa.features import TokenGrid

CPU = torch.device("cpu")
TINY = "vit_tiny_patch16_224.augreg_in21k"
REGISTERS = "vit_small_patch14_reg4_dinov2.lvd142m"
NO_PREFIX = "vit_base_patch16_siglip_224.webli"


def build(model: str = TINY, side: int = 32, **options: Any) -> Any:
    values = {"weights": "random", "img_size": side, "taps": "0,1", **options}
    return build_backbone(BackboneRequest(model, **values), device=CPU, amp_dtype=None)


def clips(b: int, t: int, side: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (b, t, side, side, 3), dtype=torch.uint8, generator=generator)


def by_hand(image: Any, pixels: Tensor, prefix: int) -> list[Tensor]:
    """Planes of clips from one frame after another: all prefix tokens, then all patches."""
    frames = [image(pixels[:, step]) for step in range(pixels.shape[1])]
    planes = []
    for tap in range(len(frames[0])):
        own = [frame[tap][:, :prefix] for frame in frames]
        patches = [frame[tap][:, prefix:] for frame in frames]
        planes.append(torch.cat([*own, *patches], dim=1))
    return planes


@pytest.mark.parametrize(
    ("model", "side", "prefix"), [(TINY, 32, 1), (REGISTERS, 28, 5), (NO_PREFIX, 32, 0)]
)
@pytest.mark.parametrize("at_once", [2, 3, 4, 7, 64])
def test_planes_are_those_of_the_frames_however_many_run_at_once(
    model: str, side: int, prefix: int, at_once: int
) -> None:
    pixels = clips(3, 3, side)
    backbone = replace(build(model, side, frames=3), frames_at_once=at_once)
    wanted = TokenGrid(2, 2, 3, 3 * prefix, is_prefix_per_step=True)
    assert (backbone.spec.grid, backbone.depth) == (wanted, 12)
    assert isinstance(backbone, Backbone)
    found = backbone(pixels)
    image = build(model, side)
    for mine, frames in zip(found, by_hand(image, pixels, prefix), strict=True):
        assert mine.shape[1:] == backbone.spec.shape[1:]
        torch.testing.assert_close(mine, frames, rtol=1e-5, atol=1e-5)


def test_no_forward_has_more_frames_than_run_at_once() -> None:
    backbone = replace(build(frames=5), frames_at_once=4)
    seen: list[int] = []
    backbone.frame.model.patch_embed.register_forward_hook(
        lambda _, given, __: seen.append(len(given[0]))
    )
    backbone(clips(3, 5))
    assert seen == [4, 1] * 3
    seen.clear()
    replace(backbone, frames_at_once=12)(clips(3, 5))
    assert seen == [10, 5]


@pytest.mark.parametrize(
    ("tokens", "grid"),
    [
        ("pool:1x2x2", TokenGrid(1, 1, 3, 3, is_prefix_per_step=True)),
        ("pool:2x2", TokenGrid(1, 1, 3, 3, is_prefix_per_step=True)),
        ("summary", TokenGrid(1, 1, 3, 3, is_prefix_per_step=True)),
        ("pool:2x1x2", TokenGrid(2, 1, 2, 2, is_prefix_per_step=True)),
        ("pool:9x9x9", TokenGrid(1, 1, 1, 1, is_prefix_per_step=True)),
    ],
)
def test_the_token_policy_averages_over_space_and_time(tokens: str, grid: TokenGrid) -> None:
    pixels = clips(2, 3)
    backbone = build(frames=3, tokens=tokens, taps="1")
    assert backbone.spec.grid == grid
    (plane,) = backbone(pixels)
    (whole,) = build(frames=3, taps="1")(pixels)
    own, patches = whole[:, :3], whole[:, 3:].unflatten(1, (3, 2, 2))
    window = -(-3 // grid.time), 2 // grid.height, 2 // grid.width
    steps = range(0, 3, window[0])
    wanted = [own[:, step : step + window[0]].mean(1) for step in steps]
    wanted += [
        patches[:, step : step + window[0], row : row + window[1], at : at + window[2]].mean(
            (1, 2, 3)
        )
        for step in steps
        for row in range(0, 2, window[1])
        for at in range(0, 2, window[2])
    ]
    torch.testing.assert_close(plane, torch.stack(wanted, 1), rtol=1e-5, atol=1e-5)


def test_the_sampling_is_part_of_the_preprocessing_and_the_weights_are_the_images() -> None:
    clip = ClipSampling(4, stride=2, short="loop", decoder="pyav", clips=2)
    backbone = build(clip=clip)
    assert backbone.preprocessing.clip == clip
    assert backbone.preprocessing.shape == (4, 32, 32, 3)
    image = build()
    assert replace(backbone.preprocessing, clip=None) == image.preprocessing
    assert backbone.weights_digest == image.weights_digest
    assert backbone.weights_digest != tensors_digest({})
    assert (backbone.name, backbone.device) == (TINY, CPU)


def test_other_taps_and_float32_share_the_weights() -> None:
    backbone: FrameBackbone = build(frames=2)
    assert backbone.in_float32() is None
    rough = replace(backbone, frame=replace(backbone.frame, amp_dtype=torch.bfloat16))
    exact = rough.in_float32()
    assert exact is not None
    assert exact.frame.model is backbone.frame.model
    other = backbone.with_taps((3,))
    assert (other.spec.taps, other.frame.spec.taps) == ((3,), (3,))
    assert other.frame.model is backbone.frame.model
    for mine, same in zip(exact(clips(1, 2)), backbone(clips(1, 2)), strict=True):
        assert torch.equal(mine, same)
    assert not torch.equal(rough(clips(1, 2))[0], backbone(clips(1, 2))[0])
