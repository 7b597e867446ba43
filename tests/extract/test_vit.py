from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from losa.errors import ResourceError, UsageError
from losa.extract.known import Anatomy
from losa.extract.tokens import parse_tokens
from losa.extract.transforms import preprocessing_of
from losa.extract.vit import ViTBackbone, anatomy_of
from losa.features import FeatureSpec, TokenGrid

NAMES = {
    "vit_tiny_patch16_224": (64, 1),
    "vit_small_patch14_reg4_dinov2": (42, 5),
    "vit_base_patch16_siglip_224": (48, 0),
    "eva02_tiny_patch14_224": (42, 1),
    "vit_small_patch16_dinov3": (48, 5),
}
"""timm name to image size and prefix tokens: CLS, CLS and registers, none, rotary positions."""


def tiny(name: str) -> Any:
    """A model of three narrow blocks whose weights are all different from zero."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"embed_dim": 24, "num_heads": 2, "depth": 3}
    model = timm.create_model(name, img_size=NAMES[name][0], num_classes=0, **options)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def backbone_of(
    model: Any, *, taps: tuple[int, ...], tokens: str = "all", amp: torch.dtype | None = None
) -> ViTBackbone:
    anatomy = anatomy_of(model, "tiny")
    img_size = model.patch_embed.img_size
    grid, pool = parse_tokens(tokens, anatomy.grid(img_size))
    return ViTBackbone(
        model=model,
        name="tiny",
        weights_digest="0" * 64,
        preprocessing=preprocessing_of(model, img_size),
        spec=FeatureSpec("tiny", taps, grid, anatomy.channels),
        pool=pool,
        device=torch.device("cpu"),
        amp_dtype=amp,
    )


def pictures(side: int) -> Tensor:
    values = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    return torch.from_numpy(values)


@pytest.mark.parametrize("name", NAMES)
def test_planes_are_what_the_blocks_give(name: str) -> None:
    model = tiny(name)
    side, prefix = NAMES[name]
    backbone = backbone_of(model, taps=(0, 2))
    seen: dict[int, Tensor] = {}
    for number, block in enumerate(model.blocks):
        block.register_forward_hook(
            lambda _block, _given, output, number=number: seen.update({number: output})
        )
    planes = backbone(pictures(side))
    assert backbone.spec.grid.prefix == prefix
    assert backbone.depth == 3
    assert [tuple(plane.shape[1:]) for plane in planes] == [backbone.spec.shape[1:]] * 2
    for tap, plane in zip((0, 2), planes, strict=True):
        torch.testing.assert_close(plane, seen[tap], rtol=0, atol=0)


def test_blocks_above_the_last_tap_do_not_run() -> None:
    model = tiny("vit_tiny_patch16_224")
    model.blocks[2].register_forward_hook(lambda *_: pytest.fail("block 2 ran"))
    assert len(backbone_of(model, taps=(1,))(pictures(64))) == 1


def test_a_compiled_forward_is_compiled_once_for_its_taps_and_one_shape(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[dict[str, Any]] = []

    def record(forward: Any, **options: Any) -> Any:
        compiled.append(options)
        return forward

    monkeypatch.setattr(torch, "compile", record)
    plain = backbone_of(tiny("vit_tiny_patch16_224"), taps=(1,))
    assert not compiled
    backbone = replace(plain, is_compiled=True)
    for _ in range(2):
        torch.testing.assert_close(backbone(pictures(64)), plain(pictures(64)))
    assert compiled == [{"dynamic": False}]
    assert len(backbone.with_taps((0, 2))(pictures(64))) == 2
    assert len(compiled) == 2


def test_a_compiler_that_fails_is_exit_6_and_other_errors_stay_what_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from torch._dynamo.exc import InternalTorchDynamoError

    errors = [InternalTorchDynamoError("no\ncompiler"), torch.OutOfMemoryError("CUDA")]

    def fail(*_: Any, **__: Any) -> None:
        raise errors.pop(0)

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fail)
    backbone = replace(backbone_of(tiny("vit_tiny_patch16_224"), taps=(0,)), is_compiled=True)
    with pytest.raises(ResourceError, match=r"--compile: failed \(no compiler\); leave") as caught:
        backbone(pictures(64))
    assert caught.value.exit_code == 6
    with pytest.raises(torch.OutOfMemoryError):
        backbone(pictures(64))


def test_pixels_are_normalised_as_torchvision_does() -> None:
    from torchvision.transforms.functional import normalize, to_tensor

    backbone = backbone_of(tiny("vit_tiny_patch16_224"), taps=(0,))
    pixels = pictures(64)
    wanted = [
        normalize(to_tensor(one), backbone.preprocessing.mean, backbone.preprocessing.std)
        for one in pixels.numpy()
    ]
    torch.testing.assert_close(backbone.normalise(pixels), torch.stack(wanted), rtol=0, atol=1e-6)
    assert pixels.dtype == torch.uint8


def test_the_token_policy_shapes_planes_and_spec() -> None:
    model = tiny("vit_tiny_patch16_224")
    (whole,) = backbone_of(model, taps=(1,))(pictures(64))
    pooled = backbone_of(model, taps=(1,), tokens="summary")
    (plane,) = pooled(pictures(64))
    assert pooled.spec.shape == (1, 2, 24)
    torch.testing.assert_close(plane[:, 0], whole[:, 0])
    torch.testing.assert_close(plane[:, 1], whole[:, 1:].mean(1))


def test_the_backbone_is_frozen_and_its_planes_may_be_trained_on() -> None:
    backbone = backbone_of(tiny("vit_tiny_patch16_224"), taps=(1,))
    assert not backbone.model.training
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())
    (plane,) = backbone(pictures(64))
    weight = torch.ones(24, requires_grad=True)
    (gradient,) = torch.autograd.grad((plane * weight).sum(), weight)
    torch.testing.assert_close(gradient, plane.sum((0, 1)))


def test_autocast_computes_in_the_dtype_asked_for() -> None:
    model = tiny("vit_tiny_patch16_224")
    exact = backbone_of(model, taps=(2,))(pictures(64))[0]
    rough = backbone_of(model, taps=(2,), amp=torch.bfloat16)(pictures(64))[0]
    difference = (rough.float() - exact).abs().max()
    assert 0 < difference < 0.1 * exact.abs().max()


def test_an_image_size_off_the_patch_grid_is_a_usage_error() -> None:
    anatomy = Anatomy(depth=12, channels=384, prefix=1, patch_size=(14, 14))
    with pytest.raises(UsageError, match=r"--img-size: 225 is not a multiple.*use 224 or 238"):
        anatomy.grid((225, 225))
    with pytest.raises(UsageError, match=r"--img-size: 7 is not a multiple.*use 14"):
        anatomy.grid((7, 7))


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224", "convnext_atto"])
def test_a_model_without_planes_is_a_usage_error(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(UsageError, match=f"--model: {name} is not a plain vision transformer"):
        anatomy_of(model, name)


def test_planes_of_another_shape_than_promised_are_refused() -> None:
    backbone = backbone_of(tiny("vit_tiny_patch16_224"), taps=(0,))
    promised = replace(backbone.spec, grid=TokenGrid(4, 4, prefix=2))
    with pytest.raises(UsageError, match=r"--model: tiny gives planes \(17, 24\), not \(18, 24\)"):
        replace(backbone, spec=promised)(pictures(64))
