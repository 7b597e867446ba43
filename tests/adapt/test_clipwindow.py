"""The window's claims: seeded steps while training, the middle ones else, and nothing torn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from losa import precision
from losa.adapt.adaptor import LoSA
from losa.adapt.clipwindow import ClipWindow, blended, window_of
from losa.adapt.options import SideOptions
from losa.adapt.registry import ADAPTORS, build_adaptor
from losa.errors import MismatchError, UsageError
from losa.features import FeatureSpec, TokenGrid
from losa.precision import EncodedPlanes
from tests.oracles.video import Video

GRIDS = (
    TokenGrid(1, 2, time=7),
    TokenGrid(1, 2, time=7, prefix=3),
    TokenGrid(1, 2, time=7, prefix=14, is_prefix_per_step=True),
)


def numbered(grid: TokenGrid, batch: int = 3) -> torch.Tensor:
    """A plane ``[b l 1]`` whose values are the numbers of sample and token."""
    values = torch.arange(batch)[:, None] * 1000 + torch.arange(grid.num_tokens)
    return values[..., None].float()


def tokens_by_hand(grid: TokenGrid, steps: list[int]) -> list[int]:
    video = Video(grid.time, grid.positions, grid.prefix, grid.is_prefix_per_step)
    count = grid.step_prefix
    found = [video.step(step) for step in steps]
    heads = [tokens[:count] for tokens in found] if grid.is_prefix_per_step else [found[0][:count]]
    return [t for head in heads for t in head] + [t for tokens in found for t in tokens[count:]]


@pytest.mark.parametrize("stride", [None, 2])
@pytest.mark.parametrize("grid", GRIDS)
def test_a_window_holds_the_tokens_of_its_steps_in_the_order_of_its_grid(
    grid: TokenGrid, stride: int | None
) -> None:
    window = ClipWindow(grid, 3, stride)
    plane = numbered(grid)
    torch.manual_seed(0)
    steps = window.drawn(3).tolist()
    torch.manual_seed(0)
    (found,) = window.taken([plane], is_drawn=True)
    assert found.shape == (3, window.grid.num_tokens, 1)
    for sample in range(3):
        expected = [sample * 1000 + token for token in tokens_by_hand(grid, steps[sample])]
        assert found[sample, :, 0].tolist() == expected


def test_steps_of_equal_parts_lie_one_in_each_and_reach_all_of_it() -> None:
    window = ClipWindow(TokenGrid(1, 1, time=7), 3)
    steps = window.drawn(500).numpy()
    parts = [set(range(2)), set(range(2, 4)), set(range(4, 7))]
    assert [set(column.tolist()) for column in steps.T] == parts
    assert window.middle == (0, 2, 5)


def test_steps_at_a_stride_begin_wherever_they_fit() -> None:
    window = ClipWindow(TokenGrid(1, 1, time=8), 3, stride=2)
    steps = window.drawn(500).numpy()
    assert set(steps[:, 0].tolist()) == {0, 1, 2, 3}
    np.testing.assert_array_equal(np.diff(steps, axis=1), 2)
    assert window.middle == (1, 3, 5)


@pytest.mark.parametrize("frames", range(1, 9))
def test_the_middle_of_a_clip_is_as_far_from_its_ends(frames: int) -> None:
    middle = ClipWindow(TokenGrid(1, 1, time=8), frames, stride=1).middle
    assert middle[0] - (7 - middle[-1]) in (0, -1)
    assert middle == tuple(range(middle[0], middle[0] + frames))


def test_all_taps_of_a_sample_and_its_scales_are_of_the_same_steps() -> None:
    grid = GRIDS[2]
    window = ClipWindow(grid, 2)
    raw = torch.stack([numbered(grid), numbered(grid)]).to(torch.int8)
    scales = torch.stack([numbered(grid)[..., 0], numbered(grid)[..., 0]]).half()
    quantiser = torch.tensor([[[0.0], [1.0]]] * 2)
    encoded = EncodedPlanes(raw, "int8", (0, 0), scales, quantiser)
    torch.manual_seed(1)
    found = window.taken(encoded, is_drawn=True)
    torch.manual_seed(1)
    planes = list(window.taken([*numbered(grid)[None], numbered(grid)], is_drawn=True))
    assert isinstance(found, EncodedPlanes)
    assert found.token_scales is not None
    assert torch.equal(planes[0], planes[1])
    for tap in range(2):
        assert torch.equal(found.raw[tap].float(), planes[tap].to(torch.int8).float())
        assert torch.equal(found.token_scales[tap].float(), planes[tap][..., 0].half().float())


@pytest.mark.parametrize("name", ADAPTORS)
def test_every_adaptor_sees_the_middle_but_for_training_when_it_draws(name: str) -> None:
    spec = FeatureSpec("tiny", (1, 3), GRIDS[2], 8)
    torch.manual_seed(2)
    adaptor = build_adaptor(name, spec, 3, SideOptions(clip_frames=3))
    for weight in adaptor.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    assert adaptor.spec.grid == GRIDS[2].with_time(3)
    plain = build_adaptor(name, adaptor.spec, 3, SideOptions())
    plain.load_state_dict(adaptor.state_dict())
    planes = torch.randn(2, 4, spec.shape[1], 8)
    steps = tokens_by_hand(spec.grid, list(ClipWindow(spec.grid, 3).middle))
    adaptor.eval()
    assert torch.equal(adaptor(planes), plain.eval()(planes[:, :, steps]))
    adaptor.train()
    torch.manual_seed(3)
    drawn = adaptor(planes)
    torch.manual_seed(3)
    assert torch.equal(adaptor(planes), drawn)
    assert not torch.equal(drawn, plain(planes[:, :, steps]))


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    grid = TokenGrid(1, 1, time=4)
    with pytest.raises(UsageError, match=r"--clip-frames: 5 steps over 5 do not fit .*4; give fe"):
        ClipWindow(grid, 5)
    with pytest.raises(UsageError, match=r"--clip-stride: 3 steps over 5 do not fit"):
        ClipWindow(grid, 3, 2)
    with pytest.raises(UsageError, match=r"--clip-frames: 2 steps"):
        LoSA(FeatureSpec("tiny", (1,), TokenGrid(2, 2), 8), options=SideOptions(clip_frames=2))
    with pytest.raises(MismatchError, match="have 3 tokens, and the clips 4"):
        list(ClipWindow(grid, 2).taken([torch.zeros(1, 3, 1)], is_drawn=False))


def test_no_window_is_made_unless_it_is_asked_for() -> None:
    assert window_of(GRIDS[0], SideOptions()) is None
    made = window_of(GRIDS[0], SideOptions(clip_frames=2, clip_stride=3))
    assert made is not None
    assert made.middle == (1, 4)


@pytest.mark.parametrize("stride", [None, 2])
@pytest.mark.parametrize("grid", GRIDS)
def test_mixup_of_a_window_has_the_values_of_whole_clips_and_decodes_fewer_rows(
    grid: TokenGrid, stride: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(4)
    options = SideOptions(clip_frames=2, clip_stride=stride)
    adaptor = LoSA(FeatureSpec("tiny", (1, 3), grid, 8), 2, 3, options=options).train()
    nn.init.normal_(adaptor.head.linear.weight)
    raw = torch.randint(-127, 128, (2, 5, grid.num_tokens, 8), dtype=torch.int8)
    scales, quantiser = torch.rand(2, 5, grid.num_tokens).half(), torch.rand(2, 2, 8)
    encoded = EncodedPlanes(raw, "int8", (0, 0), scales, quantiser)
    decoded: list[int] = []
    decode = precision.decode

    def counted(raw: torch.Tensor, *args: Any, **named: Any) -> torch.Tensor:
        decoded.append(raw.shape[:3].numel())
        return decode(raw, *args, **named)

    monkeypatch.setattr(precision, "decode", counted)
    found = []
    for is_short in (True, False):
        monkeypatch.setattr(ClipWindow, "is_short", is_short)
        decoded.append(0)
        torch.manual_seed(6)
        seen = blended(adaptor, encoded, torch.tensor([3, 1, 0, 4, 2]), 0.3)
        found.append((adaptor(seen), sum(decoded)))
        decoded.clear()
    (mine, rows), (whole, all_rows) = found
    assert torch.equal(mine, whole)
    assert all_rows == 2 * 5 * grid.num_tokens
    assert rows == 2 * 5 * 2 * grid.with_time(2).num_tokens


def test_two_windows_are_taken_before_mixup_only_where_they_are_shorter_than_the_clip() -> None:
    grid = TokenGrid(1, 2, time=7)
    assert [ClipWindow(grid, frames).is_short for frames in (1, 3, 4, 7)] == [
        *(True, True, False, False)
    ]
