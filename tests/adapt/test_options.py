"""What the switches mean on a grid; that values are checked, tests/adapt/test_adaptor.py says."""

from __future__ import annotations

import pytest

from losa.adapt.options import SideOptions, TokenAxes
from losa.errors import UsageError
from losa.features import TokenGrid

IMAGE, CLIP = TokenGrid(2, 2, prefix=1), TokenGrid(2, 2, time=3, prefix=3, is_prefix_per_step=True)


@pytest.mark.parametrize(
    ("asked", "of_image", "of_clip"),
    [
        ("auto", "joint", "factorised"),
        ("joint", "joint", "joint"),
        ("factorised", "joint", "factorised"),
        ("space", "joint", "space"),
    ],
)
def test_a_video_is_mixed_as_asked_and_an_image_jointly(
    asked: TokenAxes, of_image: str, of_clip: str
) -> None:
    options = SideOptions(token_mixing=asked)
    assert (options.mixing_on(IMAGE), options.mixing_on(CLIP)) == (of_image, of_clip)


@pytest.mark.parametrize(
    ("grid", "flag", "options"),
    [
        (IMAGE, "--token-mixing", SideOptions(token_mixing="time")),
        (IMAGE, "--time-rank", SideOptions(time_rank=4)),
        (IMAGE, "--token-order", SideOptions(token_order="time-space")),
        (CLIP, "--time-rank", SideOptions(time_rank=4, token_mixing="space")),
        (CLIP, "--token-order", SideOptions(token_order="time-space", token_mixing="time")),
        (CLIP, "--token-rank", SideOptions(token_rank=4, token_mixing="time")),
    ],
)
def test_a_switch_with_nothing_to_act_on_is_refused(
    grid: TokenGrid, flag: str, options: SideOptions
) -> None:
    with pytest.raises(UsageError, match=f"^{flag}: "):
        options.mixing_on(grid)


def test_the_rank_along_time_is_that_of_all_unless_it_is_given() -> None:
    assert SideOptions(rank=5, token_rank=2).along_time == 5
    assert SideOptions(rank=5, time_rank=3).along_time == 3


def test_a_stride_needs_a_number_of_steps() -> None:
    with pytest.raises(UsageError, match="--clip-stride: needs --clip-frames"):
        SideOptions(clip_stride=2)
