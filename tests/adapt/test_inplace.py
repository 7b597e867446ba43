"""Mixing in place against the module that the equations are held against."""

from __future__ import annotations

import pytest
import torch

from losa.adapt.inplace import AlongChannels, AlongSpace, AlongTime, Axis
from losa.adapt.mixer import (
    ChannelMixing,
    FactorisedMixer,
    Order,
    SpaceMixing,
    TimeMixing,
    TokenOrder,
)
from losa.features import TokenGrid

GRIDS = (
    TokenGrid(2, 2, time=3),
    TokenGrid(2, 2, time=3, prefix=2),
    TokenGrid(2, 2, time=3, prefix=6, is_prefix_per_step=True),
    # Products large enough for the kernels of large ones, on views that are not contiguous.
    TokenGrid(5, 9, time=4, prefix=3),
    TokenGrid(5, 9, time=4, prefix=8, is_prefix_per_step=True),
)
D = 13


def trained(grid: TokenGrid, order: Order = "channel-token") -> FactorisedMixer:
    torch.manual_seed(0)
    parts = (
        ChannelMixing(D, 3, norm=False),
        SpaceMixing(grid, 2, norm=False),
        TimeMixing(grid, 4, norm=False),
    )
    token_order: TokenOrder = "space-time" if order == "channel-token" else "time-space"
    mixer = FactorisedMixer(*parts, order=order, token_order=token_order).double()
    for weight in mixer.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return mixer


@pytest.mark.parametrize("order", ["channel-token", "token-channel"])
@pytest.mark.parametrize("grid", GRIDS)
def test_mixing_in_place_gives_the_mixers_values_and_gradients(
    grid: TokenGrid, order: Order
) -> None:
    mixer = trained(grid, order)
    # Not contiguous, as a plane of somebody's may be.
    x = torch.randn(grid.num_tokens, 2, D, dtype=torch.float64).transpose(0, 1).requires_grad_()
    before = x.detach().clone()
    results: list[list[torch.Tensor | None]] = []
    for forward in (mixer.plain, mixer.mixed):
        mixer.zero_grad()
        x.grad = None
        result = forward(x)
        torch.autograd.backward(result.square().sum())
        results.append([result.detach(), x.grad, *(weight.grad for weight in mixer.parameters())])
    for mine, theirs in zip(*results, strict=True):
        assert mine is not None
        torch.testing.assert_close(theirs, mine)
    assert torch.equal(x.detach(), before)


@pytest.mark.parametrize("is_up", [True, False])
@pytest.mark.parametrize("grid", GRIDS)
def test_reading_and_writing_are_adjoint(grid: TokenGrid, is_up: bool) -> None:
    torch.manual_seed(1)
    x = torch.randn(2, grid.num_tokens, D, dtype=torch.float64)
    widths: list[tuple[Axis, int]] = [
        (AlongChannels(), D),
        (AlongSpace(grid), grid.step_prefix + grid.positions),
        (AlongTime(grid), grid.time),
    ]
    for axis, width in widths:
        weight = torch.randn(3, width, dtype=torch.float64)
        read = axis.read(weight, x, is_up=is_up)
        hidden = torch.randn_like(read)
        written = torch.zeros_like(x)
        axis.write(written, weight, hidden, is_up=is_up)
        expected = (read * hidden).sum()
        torch.testing.assert_close((written * x).sum(), expected)
        # <W x, hidden> is linear in W too, and its gradient is the pairs.
        pairs = axis.pairs(hidden, x, is_up=is_up)
        torch.testing.assert_close((pairs * weight).sum(), expected)
