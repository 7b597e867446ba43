"""Claims of losa.extract.known: every number of the table is timm's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import timm
import torch

from losa.errors import UsageError
from losa.extract.known import (
    Anatomy,
    KnownModel,
    Profile,
    Setting,
    known_models,
    known_size,
    usual_size,
)
from losa.features import TokenGrid

OF_IMAGES = [known for known in known_models() if known.frames == 1]
GIANT = Profile("g", Anatomy(40, 1408, 1, (14, 14)), 6144, 1_011_203_840, (224, 224))


@pytest.mark.parametrize("known", OF_IMAGES, ids=lambda known: known.alias)
def test_every_number_of_an_alias_is_what_timm_builds(known: KnownModel) -> None:
    with torch.device("meta"):
        model: Any = timm.create_model(known.name, num_classes=0)
    assert model.patch_embed.patch_size == (known.patch, known.patch)
    assert model.num_prefix_tokens == 1
    linear = [part for part in model.blocks[0].mlp.modules() if isinstance(part, torch.nn.Linear)]
    weights = sum(part.in_features * part.out_features for part in linear)
    assert weights == 2 * known.channels * known.mlp


@pytest.mark.parametrize(
    ("name", "gflop"),
    [("vit_s", 9.1), ("vit_b", 35), ("vit_l", 123), ("vit_h", 334), ("vit_g", 534),
     ("vit_gigantic", 967)],
)  # fmt: skip
def test_flops_are_those_of_the_formula_by_hand(name: str, gflop: float) -> None:
    known = next(one for one in known_models() if one.alias == name)
    n, d, m = (224 // known.patch) ** 2 + 1, known.channels, known.mlp
    anatomy = Anatomy(known.depth, d, 1, (known.patch, known.patch))
    profile = Profile(known.name, anatomy, m, known.parameters, (224, 224))
    by_hand = sum(2 * n * (d * 3 * d + d * d + 2 * d * m) + 2 * (2 * n * n * d) for _ in range(12))
    assert profile.flops(12) == by_hand
    assert profile.flops(known.depth) / 1e9 == pytest.approx(gflop, rel=0.01)


def test_half_the_blocks_are_half_the_flops() -> None:
    assert 2 * GIANT.flops(20) == GIANT.flops(40)


def test_a_setting_names_taps_tokens_and_dtype() -> None:
    spec = GIANT.spec(Setting("every:4", "pool:2x2", "int8"))
    assert (spec.shape, spec.sample_bytes) == ((10, 65, 1408), 10 * 65 * (1408 + 2))


def test_an_image_size_between_two_patches_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--img-size: 225 .*use 224 or 238"):
        GIANT.anatomy.grid((225, 225))
    assert GIANT.anatomy.grid((28, 42)) == TokenGrid(2, 3, prefix=1)


def test_dinov2_is_taken_at_224_and_others_at_their_own_size() -> None:
    assert usual_size("vit_base_patch14_dinov2.lvd142m", (518, 518)) == (224, 224)
    assert usual_size("vit_base_patch16_384", (384, 384)) == (384, 384)


def test_frame_by_frame_a_clip_costs_its_frames_and_every_step_has_its_prefix_tokens() -> None:
    clip = replace(GIANT, frames=8)
    assert clip.flops(40) == 8 * GIANT.flops(40)
    assert clip.grid == TokenGrid(16, 16, 8, 8, is_prefix_per_step=True)
    spec = clip.spec(Setting("all", "all", "float16"))
    # 237 MB of a clip by a table reckoned by hand, which has the embedding as a 41st tap.
    assert spec.sample_bytes / 1e6 == pytest.approx(237, rel=0.03)
    assert clip.flops(40) / 1e12 == pytest.approx(4.3, rel=0.01)


def test_video_backbones_are_listed_with_their_frames() -> None:
    listed = {known.alias: known for known in known_models() if known.frames > 1}
    assert {"vivit_b", "vivit_l", "vivit_h", "vivit_g", "vivit_e", "vivit_e_fe"} <= set(listed)
    giant = listed["vivit_e"]
    assert (giant.channels, giant.depth, giant.mlp, giant.patch) == (1792, 56, 15360, 14)
    assert (giant.frames, listed["vivit_b_fe"].depth) == (32, 16)


def test_sizes_of_clip_sets_are_those_of_their_splits() -> None:
    for name, train, others in (
        ("k400", 240_436, 19_796),
        ("ssv2", 168_913, 24_777),
        ("ucf101", 9_537, 3_783),
        ("hmdb51", 51 * 70, 51 * 30),
    ):
        found = known_size(name)
        assert found is not None
        assert list(found.splits.values()) == [train, others]


def test_sizes_are_known_of_named_data_sets_only() -> None:
    found = known_size("inat2018")
    assert found is not None
    assert sum(found.splits.values()) == 461_939
    assert known_size("vtab/dtd") == known_size("vtab/svhn")
    final = known_size("vtab/dtd:1000")
    assert final is not None
    assert final.splits == {"train": 1000}
    assert known_size("photos") is None
