"""Claims of losa.extract.vivitshapes: names, grids, parameters and FLOPs of ViViT."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from losa.errors import UsageError
from losa.extract.video.vivit import VideoTransformer
from losa.extract.vivitshapes import SHAPES, VideoShape, known_shape, usual_clip, video_shape
from losa.features import TokenGrid

# Megabytes of a clip at one tap, and TFLOP of a clip, from a table reckoned without this code.
TABLE = {
    "vivit_b": (4.82, 0.90),
    "vivit_l": (6.42, 2.9),
    "vivit_l_fe": (6.46, 2.0),
    "vivit_h": (10.5, 7.9),
    "vivit_g": (11.5, 12),
    "vivit_e": (14.7, 38),
}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.alias)
def test_parameters_and_mlps_are_those_of_the_network(shape: VideoShape) -> None:
    with torch.device("meta"):
        model = VideoTransformer(shape)
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    first = dict(model.blocks[0].named_parameters())
    assert first["mlp.fc1.weight"].shape == (shape.mlp, shape.width)


@pytest.mark.parametrize("alias", TABLE)
def test_bytes_and_flops_of_a_clip_are_those_of_the_table_by_hand(alias: str) -> None:
    shape = known_shape(alias)
    grid = shape.grid((224, 224), 32)
    megabytes, tflop = TABLE[alias]
    assert grid.num_tokens * shape.width * 2 / 1e6 == pytest.approx(megabytes, rel=0.01)
    assert shape.flops(grid, shape.depth) / 1e12 == pytest.approx(tflop, rel=0.04)


def test_flops_of_the_factorised_encoder_are_those_of_its_parts() -> None:
    shape = VideoShape("vivit_b_fe", 16, 8, 3, 32, 2, temporal=2)
    grid = shape.grid((32, 32), 8)
    n, t, d, m = 1 + 4, 4, 8, 32
    over_space = 2 * n * (4 * d * d + 2 * d * m) + 2 * 2 * n * n * d
    over_time = 2 * (1 + t) * (4 * d * d + 2 * d * m) + 2 * 2 * (1 + t) ** 2 * d
    assert shape.flops(grid, 2) == 2 * t * over_space
    assert shape.flops(grid, 5) == 3 * t * over_space + 2 * over_time


def test_joint_attention_has_one_class_token_and_the_factorised_encoder_one_a_step() -> None:
    assert known_shape("vivit_b").grid((224, 224), 32) == TokenGrid(14, 14, 16, 1)
    wanted = TokenGrid(14, 14, 16, 16, is_prefix_per_step=True)
    assert known_shape("vivit_b_fe").grid((224, 224), 32) == wanted


@pytest.mark.parametrize(
    ("img_size", "frames", "message"),
    [
        ((224, 224), 31, "--frames: 31 is not a multiple of the tubelet's 2; use 30 or 32"),
        ((225, 225), 32, "--img-size: 225 is not a multiple of the tubelet's 16"),
        ((8, 8), 32, "--img-size: 8 .*; use 16"),
    ],
)
def test_what_is_no_multiple_of_a_tubelet_is_refused(
    img_size: tuple[int, int], frames: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        known_shape("vivit_b").grid(img_size, frames)


def test_a_name_says_every_option_that_is_not_usual_and_means_the_same_again() -> None:
    for text, name in (
        ("vivit_e", "vivit_e"),
        ("vivit_e:depth=56", "vivit_e"),
        ("vivit_e:inflate=average,depth=2", "vivit_e:depth=2,inflate=average"),
        ("vivit_b_fe:temporal=0", "vivit_b_fe:temporal=0"),
    ):
        shape = video_shape(text)
        assert shape.name == name
        assert video_shape(name) == shape
    assert video_shape("vivit_e:depth=2") == replace(known_shape("vivit_e"), depth=2)


@pytest.mark.parametrize(
    "text",
    ["vivit_x", "vivit_b:", "vivit_b:depth", "vivit_b:depth=0", "vivit_b:depth=9999",
     "vivit_b:temporal=4", "vivit_b:inflate=no", "vivit_b:width=3", "vivit_b:depth=-1"],
)  # fmt: skip
def test_an_unknown_alias_or_option_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--model: .*(did you mean vivit|use depth=N)"):
        video_shape(text)


def test_only_video_backbones_have_a_usual_clip() -> None:
    assert usual_clip("vivit_g_fe:depth=2") == (32, 2)
    assert usual_clip("vit_g") is None
