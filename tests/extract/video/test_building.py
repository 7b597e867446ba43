"""Claims of losa.extract.video.building: from a request to a ViViT, and back from a record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from losa.device import resolve_compute
from losa.errors import MismatchError, UsageError
from losa.extract.backbones import BackboneRequest, build_backbone, rebuild_backbone
from losa.extract.sampling import ClipSampling
from losa.features import FeatureSpec, TokenGrid

CPU = torch.device("cpu")
SMALL = "vivit_b:depth=2"


def build(model: str = SMALL, **options: Any) -> Any:
    values = {"weights": "random", "img_size": 32, **options}
    return build_backbone(BackboneRequest(model, **values), device=CPU, amp_dtype=None)


@dataclass(frozen=True)
class Kept:
    """What a store keeps of a backbone."""

    spec: FeatureSpec
    backbone: dict[str, Any]
    preprocessing: dict[str, Any]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights of an image transformer of ViViT-B's width with two blocks."""
    torch.manual_seed(0)
    model: Any = timm.create_model("vit_base_patch16_224", depth=2, num_classes=0)
    file = tmp_path_factory.mktemp("image") / "image.safetensors"
    save_file(model.state_dict(), file)
    return str(file)


def test_the_spec_describes_the_planes_and_the_clip_is_the_usual_one() -> None:
    backbone = build(taps="last", tokens="pool:4x2x2", dtype="float32")
    assert backbone.preprocessing.clip == ClipSampling(32, 2)
    assert backbone.spec == FeatureSpec(SMALL, (1,), TokenGrid(1, 1, 4, 1), 768, "float32")
    assert (backbone.preprocessing.resize, backbone.preprocessing.mean[0]) == ((36, 36), 0.5)
    (plane,) = backbone(torch.zeros(1, 32, 32, 32, 3, dtype=torch.uint8))
    assert tuple(plane.shape) == (1, 5, 768)


def test_frames_that_matter_alone_are_asked_for_after_central_inflation(image: str) -> None:
    central = build(weights=image, frames=4)
    assert central.preprocessing.clip == ClipSampling(4, 2, every=2, offset=1)
    assert central.preprocessing.shape == (2, 32, 32, 3)
    assert central.spec.grid == TokenGrid(2, 2, 2, 1)
    average = build("vivit_b:inflate=average,depth=2", weights=image, frames=4)
    assert average.preprocessing.shape == (4, 32, 32, 3)
    assert average.name == "vivit_b:depth=2,inflate=average"
    assert central.weights_digest != average.weights_digest
    assert central.weights_digest == build(weights=image, img_size=64).weights_digest


@pytest.mark.parametrize("model", [SMALL, "vivit_b_fe:depth=1,temporal=1"])
def test_a_recorded_backbone_is_built_again_and_another_is_refused(model: str) -> None:
    clip = ClipSampling(4, 3, decoder="pyav", clips=2)
    backbone = build(model, clip=clip, tokens="pool:2x2", taps="1")
    record = {"model": backbone.name, "weights": backbone.weights_digest, "tokens": "pool:2x2"}
    kept = Kept(backbone.spec, record, backbone.preprocessing.to_json())
    compute = resolve_compute("cpu", "none")
    again = rebuild_backbone(kept, "random", compute, whose="store")
    assert (again.spec, again.preprocessing) == (backbone.spec, backbone.preprocessing)
    other = Kept(backbone.spec, {**record, "weights": "0" * 64}, kept.preprocessing)
    with pytest.raises(MismatchError, match="not the store's"):
        rebuild_backbone(other, "random", compute, whose="store")


def test_a_recorded_backbone_whose_frames_are_skipped_is_built_again(image: str) -> None:
    backbone = build(weights=image, frames=4, taps="0")
    record = {"model": backbone.name, "weights": backbone.weights_digest, "tokens": "all"}
    kept = Kept(backbone.spec, record, backbone.preprocessing.to_json())
    again = rebuild_backbone(kept, image, resolve_compute("cpu", "none"), whose="store")
    assert again.preprocessing == backbone.preprocessing


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"frames": 3}, "--frames"),
        ({"img_size": 40}, "--img-size"),
        ({"taps": "2"}, "--taps"),
        ({"tokens": "pool"}, "--tokens"),
        ({"model": "vivit_b:depth=x"}, "--model"),
    ],
)
def test_mistakes_show_before_any_weights_are_read(options: dict[str, Any], flag: str) -> None:
    with pytest.raises(UsageError, match=f"^{flag}: "):
        build(**{"model": SMALL, "weights": "/nowhere.safetensors", **options})
