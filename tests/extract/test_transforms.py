from __future__ import annotations

import json
from dataclasses import replace

import pytest
import timm

from losa.errors import MismatchError, UsageError
from losa.extract.sampling import ClipSampling
from losa.extract.transforms import Preprocessing, preprocessing_of

HALF = (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    "name",
    [
        "vit_base_patch16_224.orig_in21k",
        "vit_giant_patch14_clip_224.laion2b",
        "vit_small_patch14_dinov2.lvd142m",
        "eva02_tiny_patch14_336.mim_in22k_ft_in1k",
    ],
)
def test_preprocessing_is_what_timm_resolves_for_the_weights(name: str) -> None:
    config = timm.models.get_pretrained_cfg(name)
    assert config is not None
    found = preprocessing_of(vars(config), (98, 112))
    assert found.img_size == (98, 112)
    assert found.mean == tuple(config.mean)
    assert found.std == tuple(config.std)
    assert (found.crop_pct, found.crop_mode) == (config.crop_pct, config.crop_mode)
    assert found.interpolation == config.interpolation


def test_a_model_is_asked_for_its_own_configuration() -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=0)
    config = model.pretrained_cfg
    assert preprocessing_of(model, (32, 32)) == preprocessing_of(config, (32, 32))


def test_preprocessing_survives_json() -> None:
    before = Preprocessing((224, 196), 0.95, "border", "lanczos", HALF, (0.1, 0.2, 0.3))
    assert Preprocessing.from_json(json.loads(json.dumps(before.to_json()))) == before


def test_frames_of_a_clip_are_part_of_the_json_and_of_the_shape() -> None:
    image = Preprocessing((32, 48), 1.0, "center", "bicubic", HALF, HALF)
    clip = replace(image, clip=ClipSampling(8, 2, clips=3, every=2, offset=1))

    assert "clip" not in image.to_json()
    assert Preprocessing.from_json(clip.to_json()) == clip
    assert (image.shape, clip.shape) == ((32, 48, 3), (4, 32, 48, 3))


def test_crops_need_a_side_that_is_left_over() -> None:
    squashed = Preprocessing((32, 32), 1.0, "squash", "bicubic", HALF, HALF)

    with pytest.raises(UsageError, match=r"3 crops along a side that crop mode .squash. "):
        replace(squashed, clip=ClipSampling(8, crops=3))


def test_preprocessing_of_other_decode_rules_is_a_mismatch() -> None:
    value = Preprocessing((32, 32), 1.0, "center", "bicubic", HALF, HALF).to_json()
    with pytest.raises(MismatchError, match="decoded under rules 99"):
        Preprocessing.from_json({**value, "decode_rules": 99})


@pytest.mark.parametrize(("mode", "interpolation"), [("center", "random"), ("five", "bicubic")])
def test_an_unknown_crop_or_interpolation_is_a_usage_error(mode: str, interpolation: str) -> None:
    with pytest.raises(UsageError, match="is not known"):
        Preprocessing((32, 32), 1.0, mode, interpolation, HALF, HALF)
