"""Claims of losa.extract.profiles: table and timm tell the same."""

from __future__ import annotations

import pytest

from losa.errors import UsageError
from losa.extract.profiles import profile_by_timm, profile_of


@pytest.mark.parametrize("alias", ["vit_s", "dinov2_g"])
def test_the_table_and_timm_give_the_same_profile(alias: str) -> None:
    assert profile_of(alias) == profile_by_timm(alias)


def test_a_full_timm_name_of_the_table_is_found_there() -> None:
    assert profile_of("vit_base_patch16_224.orig_in21k") == profile_of("vit_b")


def test_a_model_that_the_table_lacks_is_built_by_timm() -> None:
    profile = profile_of("vit_tiny_patch16_224")
    assert (profile.name, profile.mlp) == ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", 768)
    anatomy = profile.anatomy
    assert (anatomy.depth, anatomy.channels, anatomy.prefix) == (12, 192, 1)


def test_the_image_size_asked_for_counts() -> None:
    assert profile_of("vit_b", 384).img_size == (384, 384)
    assert profile_of("vit_b", 384).anatomy.grid((384, 384)).num_tokens == 577


def test_frames_make_a_profile_one_of_clips() -> None:
    assert profile_of("vit_b").frames is None
    assert profile_of("vit_b", frames=4).grid.num_tokens == 4 * 197
    assert profile_of("vivit_b").grid.num_tokens == 3137
    assert profile_of("vivit_b", 32, 8).grid.num_tokens == 1 + 4 * 2 * 2
    assert profile_of("vivit_e:depth=2").anatomy.depth == 2
    with pytest.raises(UsageError, match="--frames: 7 is not a multiple"):
        _ = profile_of("vivit_b", frames=7).grid


def test_no_model_and_no_transformer_are_refused() -> None:
    with pytest.raises(UsageError, match="is not a model"):
        profile_of("vit_gg")
    with pytest.raises(UsageError, match="is not a plain"):
        profile_of("resnet18")
