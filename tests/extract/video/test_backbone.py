"""Claims of losa.extract.video.backbone: a frozen ViViT at its taps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from losa.errors import ResourceError, UsageError
from losa.extract.backbones import Backbone
from losa.extract.sampling import ClipSampling
from losa.extract.tokens import parse_tokens
from losa.extract.transforms import Preprocessing
from losa.extract.video.backbone import ViViTBackbone
from losa.extract.video.vivit import VideoTransformer
from losa.extract.video.weights import frames_that_matter
from losa.extract.vivitshapes import VideoShape
from losa.features import FeatureSpec

JOINT = VideoShape("vivit_b", 16, 24, 3, 96, 4, frames=4, img_size=32)
FACTORISED = replace(JOINT, alias="vivit_b_fe", temporal=2)
HALF = (0.5, 0.5, 0.5)
CPU = torch.device("cpu")


def model_of(shape: VideoShape, *, is_central: bool = False) -> VideoTransformer:
    torch.manual_seed(0)
    model = VideoTransformer(shape)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    if is_central:
        with torch.no_grad():
            model.patch_embed.proj.weight[:, :, 0] = 0
    return model


def backbone_of(model: VideoTransformer, taps: tuple[int, ...], **options: Any) -> ViViTBackbone:
    grid, pool = parse_tokens(options.pop("tokens", "all"), model.shape.grid((32, 32), 4))
    looked_at = options.pop("looked_at", slice(0, 2))
    every = 2 // (looked_at.stop - looked_at.start)
    clip = ClipSampling(4, every=every, offset=looked_at.start)
    values: dict[str, Any] = {"amp_dtype": None, **options}
    return ViViTBackbone(
        model=model,
        name="tiny",
        weights_digest="0" * 64,
        preprocessing=Preprocessing((32, 32), 1.0, "center", "bilinear", HALF, HALF, clip),
        spec=FeatureSpec("tiny", taps, grid, 24),
        pool=pool,
        device=CPU,
        looked_at=looked_at,
        **values,
    )


def clips(frames: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, frames, 32, 32, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("shape", [JOINT, FACTORISED], ids=lambda shape: shape.alias)
def test_planes_are_those_of_the_network_on_pixels_from_minus_one_to_one(
    shape: VideoShape,
) -> None:
    model = model_of(shape)
    taps = (0, shape.blocks - 1)
    backbone = backbone_of(model, taps)
    assert isinstance(backbone, Backbone)
    assert backbone.depth == shape.blocks
    found = backbone(clips())
    with torch.no_grad():
        wanted = model(clips().permute(0, 4, 1, 2, 3).float() / 127.5 - 1, taps, slice(0, 2))
    for mine, other in zip(found, wanted, strict=True):
        assert mine.shape[1:] == backbone.spec.shape[1:]
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


def test_frames_that_the_kernel_does_not_look_at_need_not_be_there() -> None:
    model = model_of(JOINT, is_central=True)
    looked_at = frames_that_matter(model.patch_embed.proj.weight)
    assert looked_at == slice(1, 2)
    short = backbone_of(model, (0, 2), looked_at=looked_at)
    assert short.preprocessing.shape == (2, 32, 32, 3)
    whole = backbone_of(model, (0, 2))(clips())
    for mine, other in zip(short(clips()[:, 1::2]), whole, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def test_clips_of_another_shape_are_refused() -> None:
    with pytest.raises(UsageError, match=r"tiny was given clips \(3, 32, 32\), not \(4, 32, 32\)"):
        backbone_of(model_of(JOINT), (0,))(clips(3))


def test_the_token_policy_shapes_planes_and_spec() -> None:
    model = model_of(JOINT)
    (whole,) = backbone_of(model, (1,))(clips())
    pooled = backbone_of(model, (1,), tokens="pool:2x2x1")
    (plane,) = pooled(clips())
    assert pooled.spec.shape == (1, 1 + 2, 24)
    torch.testing.assert_close(plane[:, 0], whole[:, 0])
    columns = whole[:, 1:].reshape(2, 2, 2, 2, 24).mean((1, 2))
    torch.testing.assert_close(plane[:, 1:], columns)


def test_the_backbone_is_frozen_and_other_taps_and_dtypes_share_its_weights() -> None:
    backbone = backbone_of(model_of(JOINT), (2,), amp_dtype=torch.bfloat16)
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())
    exact = backbone.in_float32()
    assert exact is not None
    assert exact.in_float32() is None
    assert exact.model is backbone.with_taps((0, 1)).model is backbone.model
    assert len(backbone.with_taps((0, 1))(clips())) == 2
    (rough,), (sharp,) = backbone(clips()), exact(clips())
    assert not rough.requires_grad
    assert 0 < float((rough - sharp).abs().max()) < 0.1 * float(sharp.abs().max())


def test_a_compiler_that_fails_says_what_may_be_left_away(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.exc import InternalTorchDynamoError

    def fail(*_: Any) -> None:
        raise InternalTorchDynamoError("no\ncompiler")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fail)
    backbone = backbone_of(model_of(JOINT), (0,), is_compiled=True)
    with pytest.raises(ResourceError, match=r"--compile: failed \(no compiler\); leave it away"):
        backbone(clips())
