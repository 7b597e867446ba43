from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from losa.errors import UsageError
from losa.extract.backbones import (
    Backbone,
    BackboneRequest,
    build_backbone,
    model_name,
)
from losa.extract.known import ALIASES, known_models
from losa.extract.weights import tensors_digest
from losa.features import FeatureSpec, TokenGrid

CPU = torch.device("cpu")
TINY = "vit_tiny_patch16_224.augreg_in21k"


def build(model: str, **options: Any) -> Backbone:
    request = BackboneRequest(model, **{"weights": "random", **options})
    return build_backbone(request, device=CPU, amp_dtype=None)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    model: Any = timm.create_model(TINY, num_classes=0)
    torch.nn.init.normal_(model.pos_embed)
    file = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(model.state_dict(), file)
    return file


@pytest.mark.parametrize(
    "known",
    [known for known in known_models() if known.frames == 1],
    ids=lambda known: known.alias,
)
def test_the_table_of_models_is_what_timm_builds(known: Any) -> None:
    assert ALIASES[known.alias] == known.name
    config = timm.models.get_pretrained_cfg(known.name)
    assert config is not None
    assert config.hf_hub_id == f"timm/{known.name}"
    with torch.device("meta"):
        model: Any = timm.create_model(known.name, num_classes=0)
    assert (known.depth, known.channels) == (len(model.blocks), model.embed_dim)
    assert known.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert known.img_size == 224
    if "dinov2" not in known.name:
        assert config.input_size == (3, 224, 224)


def test_the_spec_describes_the_planes() -> None:
    backbone = build(TINY, img_size=64, taps="last:2", tokens="pool:2x2", dtype="float32")
    grid = TokenGrid(2, 2, prefix=1)
    assert backbone.spec == FeatureSpec(TINY, (10, 11), grid, 192, "float32")
    assert (backbone.name, backbone.depth, backbone.device) == (TINY, 12, CPU)
    assert backbone.preprocessing.img_size == (64, 64)
    planes = backbone(torch.zeros(3, 64, 64, 3, dtype=torch.uint8))
    assert [tuple(plane.shape) for plane in planes] == [(3, 5, 192)] * 2


def test_the_image_size_defaults_to_the_weights_own_and_to_224_for_dinov2() -> None:
    assert build(TINY).preprocessing.img_size == (224, 224)
    dino = build("vit_small_patch14_reg4_dinov2.lvd142m", taps="0")
    assert dino.preprocessing.img_size == (224, 224)
    assert dino.spec.grid == TokenGrid(16, 16, prefix=5)
    assert dino.preprocessing.mean == (0.485, 0.456, 0.406)


def test_positions_are_interpolated_as_timm_does(tiny: Path) -> None:
    backbone = build(TINY, weights=str(tiny), img_size=96, taps="0,11")
    wanted: Any = timm.create_model(
        TINY,
        pretrained=True,
        num_classes=0,
        img_size=96,
        pretrained_cfg_overlay={"file": str(tiny)},
    ).eval()
    pixels = torch.randint(0, 256, (2, 96, 96, 3), dtype=torch.uint8)
    normalised = (pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    seen: list[Tensor] = []
    for number in (0, 11):
        wanted.blocks[number].register_forward_hook(lambda *call: seen.append(call[2]))
    with torch.no_grad():
        wanted(normalised)
    for plane, other in zip(backbone(pixels), seen, strict=True):
        torch.testing.assert_close(plane, other, rtol=1e-4, atol=1e-4)


def test_the_digest_does_not_depend_on_the_image_size(tiny: Path) -> None:
    digests = {
        build(TINY, weights=str(tiny), img_size=side, taps="0").weights_digest
        for side in (32, 96, 224)
    }
    assert digests == {tensors_digest(load_file(tiny))}


def test_names_become_timm_names_with_their_tag() -> None:
    assert model_name("dinov2_g") == "vit_giant_patch14_dinov2.lvd142m"
    assert model_name("vivit_e:depth=56") == "vivit_e"
    default = timm.models.get_pretrained_cfg("vit_tiny_patch16_224")
    assert default is not None
    assert model_name("vit_tiny_patch16_224") == f"vit_tiny_patch16_224.{default.tag}"


@pytest.mark.parametrize("text", ["vitg", "", "hf-hub:timm/x", "../vit", "vit_b.laion2b"])
def test_an_unknown_model_names_the_three_closest(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        model_name(text)
    assert str(caught.value).startswith(f"--model: {text!r} is not a model; did you mean ")
    assert str(caught.value).endswith("? see losa models")
    assert str(caught.value).count(",") == 2
    if text == "vitg":
        assert "vit_g" in str(caught.value)


def test_an_unknown_tag_names_the_tags_there_are() -> None:
    with pytest.raises(UsageError, match=r"has no weights 'nope'; use vit_tiny_patch16_224."):
        model_name("vit_tiny_patch16_224.nope")


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"img_size": 100}, "--img-size"),
        ({"taps": "0,99"}, "--taps"),
        ({"tokens": "pool"}, "--tokens"),
        ({"model": "resnet18"}, "--model"),
    ],
)
def test_mistakes_show_before_any_weights_are_read(options: dict[str, Any], flag: str) -> None:
    with pytest.raises(UsageError, match=f"^{flag}: "):
        build(**{"model": "vit_b", "weights": "/nowhere.safetensors", **options})


@pytest.mark.slow
def test_the_real_vit_g_with_random_weights_gives_its_planes() -> None:
    backbone = build("vit_g")
    planes = backbone(torch.zeros(1, 224, 224, 3, dtype=torch.uint8))
    assert len(planes) == 10
    assert tuple(planes[0].shape) == (1, 257, 1408)
