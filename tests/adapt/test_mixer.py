from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from losa.adapt.mixer import (
    ChannelMixing,
    FactorisedMixer,
    Mixer,
    Order,
    SpaceMixing,
    TimeMixing,
    TokenMixing,
    TokenOrder,
)
from losa.features import TokenGrid
from tests.oracles import side_network as oracle
from tests.oracles import video


def trained(mixer: Mixer) -> Mixer:
    """Give every weight a value, as training would."""
    for weight in mixer.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return mixer


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("order", get_args(Order))
def test_mixer_agrees_with_the_equations(order: Order, norm: bool) -> None:
    torch.manual_seed(0)
    mixer = trained(Mixer(5, 12, (3, 2), order=order, norm=norm)).double()
    x = torch.randn(4, 5, 12, dtype=torch.float64)
    weights = (mixer.channel.down, mixer.channel.up, mixer.token.down, mixer.token.up)
    down_d, up_d, down_l, up_l = (weight.detach().numpy() for weight in weights)
    expected = oracle.mixer(x.numpy(), (down_d, up_d, down_l, up_l), order, norm)
    np.testing.assert_allclose(mixer(x).detach().numpy(), expected, atol=1e-12)


def test_a_mixer_has_2dr_plus_2lr_parameters() -> None:
    d, l, r, token_r = 768, 197, 8, 3  # noqa: E741 -- the axis letter
    same = sum(weight.numel() for weight in Mixer(l, d, (r, r)).parameters())
    assert same == 2 * d * r + 2 * l * r
    apart = sum(weight.numel() for weight in Mixer(l, d, (r, token_r)).parameters())
    assert apart == 2 * d * r + 2 * l * token_r


@pytest.mark.parametrize("order", get_args(Order))
def test_a_new_mixer_is_the_identity_to_the_bit(order: Order) -> None:
    x = torch.randn(2, 5, 12)
    assert torch.equal(Mixer(5, 12, (3, 3), order=order)(x), x)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("order", get_args(Order))
def test_gradients_agree_with_finite_differences(order: Order, norm: bool) -> None:
    torch.manual_seed(1)
    mixer = trained(Mixer(3, 4, (2, 2), order=order, norm=norm)).double()
    names, weights = zip(*mixer.named_parameters(), strict=True)
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)

    def call(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        named = dict(zip(names, values, strict=True))
        result: torch.Tensor = torch.func.functional_call(mixer, named, (x,))
        return result

    assert torch.autograd.gradcheck(call, (x, *weights))


@pytest.mark.parametrize("kind", [ChannelMixing, TokenMixing])
def test_the_down_projection_starts_with_variance_one_over_width_and_is_seeded(
    kind: type[ChannelMixing] | type[TokenMixing],
) -> None:
    torch.manual_seed(7)
    first = kind(400, 64)
    torch.manual_seed(7)
    second = kind(400, 64)
    assert torch.equal(first.down, second.down)
    assert first.down.std().item() == pytest.approx(400**-0.5, rel=0.05)
    assert not first.up.any()


def test_dropout_acts_while_training_only() -> None:
    torch.manual_seed(2)
    mixer = trained(Mixer(5, 12, (8, 8), dropout=0.5))
    x = torch.randn(2, 5, 12)
    assert not torch.equal(mixer(x), mixer(x))
    mixer.eval()
    assert torch.equal(mixer(x), mixer(x))


def test_a_mixer_without_dropout_draws_no_random_numbers() -> None:
    mixer = Mixer(5, 12, (8, 8))
    before = torch.get_rng_state()
    mixer(torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), before)


def test_half_planes_under_autocast_give_what_full_precision_gives() -> None:
    torch.manual_seed(3)
    mixer = trained(Mixer(5, 12, (4, 4)))
    x = torch.randn(2, 5, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = mixer(x.bfloat16())
    torch.testing.assert_close(half.float(), mixer(x), atol=0.15, rtol=0.05)


VIDEOS = (
    TokenGrid(2, 2, time=3, prefix=0),
    TokenGrid(2, 2, time=3, prefix=2),
    TokenGrid(2, 2, time=3, prefix=6, is_prefix_per_step=True),
)


def factorised(
    grid: TokenGrid,
    orders: tuple[Order, TokenOrder] = ("channel-token", "space-time"),
    norm: bool = False,
) -> FactorisedMixer:
    parts = (
        ChannelMixing(5, 3, norm=norm),
        SpaceMixing(grid, 2, norm=norm),
        TimeMixing(grid, 4, norm=norm),
    )
    return FactorisedMixer(*parts, order=orders[0], token_order=orders[1])


def weights_of(mixer: FactorisedMixer) -> dict[str, tuple[video.Array, video.Array]]:
    named = {name: weight.detach().numpy() for name, weight in mixer.named_parameters()}
    axes = {name.partition(".")[0] for name in named}
    return {axis: (named[f"{axis}.down"], named[f"{axis}.up"]) for axis in axes}


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize(
    ("orders", "axes"),
    [
        (("channel-token", "space-time"), ("channel", "space", "time")),
        (("token-channel", "time-space"), ("time", "space", "channel")),
    ],
)
@pytest.mark.parametrize("grid", VIDEOS)
def test_a_factorised_mixer_agrees_with_the_equations_token_by_token(
    grid: TokenGrid, orders: tuple[Order, TokenOrder], axes: tuple[str, ...], norm: bool
) -> None:
    torch.manual_seed(0)
    mixer = factorised(grid, orders, norm).double()
    for weight in mixer.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    x = torch.randn(2, grid.num_tokens, 5, dtype=torch.float64)
    sizes = video.Video(grid.time, grid.positions, grid.prefix, grid.is_prefix_per_step)
    expected = video.mixer(x.numpy(), weights_of(mixer), axes, sizes, norm=norm)
    np.testing.assert_allclose(mixer(x).detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("grid", VIDEOS)
def test_a_factorised_mixer_has_2dr_2sr_and_2tr_parameters_and_starts_as_the_identity(
    grid: TokenGrid,
) -> None:
    mixer = factorised(grid)
    counted = sum(weight.numel() for weight in mixer.parameters())
    s = 2 * 2 + {0: 0, 2: 2, 6: 6 // 3}[grid.prefix]
    assert counted == 2 * 5 * 3 + 2 * s * 2 + 2 * 3 * 4
    x = torch.randn(2, grid.num_tokens, 5)
    assert torch.equal(mixer(x), x)


def test_only_the_weights_along_time_depend_on_the_length_of_the_clip() -> None:
    grid = VIDEOS[2]
    shapes = [
        {name: weight.shape for name, weight in factorised(one).named_parameters()}
        for one in (grid, grid.with_time(7))
    ]
    changed = {name for name in shapes[0] if shapes[0][name] != shapes[1][name]}
    assert changed == {"time.down", "time.up"}
    assert shapes[1]["time.down"] == (4, 7)


@pytest.mark.parametrize("norm", [True, False])
def test_space_mixing_of_one_time_step_is_token_mixing(norm: bool) -> None:
    grid = TokenGrid(2, 3, prefix=2, is_prefix_per_step=True)
    torch.manual_seed(3)
    space = SpaceMixing(grid, 4, norm=norm)
    torch.nn.init.normal_(space.up)
    token = TokenMixing(grid.num_tokens, 4, norm=norm)
    token.load_state_dict(space.state_dict())
    x = torch.randn(2, grid.num_tokens, 5)
    torch.testing.assert_close(space(x), token(x))


def test_each_axis_of_a_video_can_be_mixed_alone() -> None:
    grid = VIDEOS[1]
    torch.manual_seed(4)
    x = torch.randn(1, grid.num_tokens, 5)
    other = x.clone()
    other[:, grid.prefix + grid.positions :] += 1.0  # all steps but the first
    other[:, : grid.prefix] = x[:, : grid.prefix]
    space, time = SpaceMixing(grid, 4), TimeMixing(grid, 4)
    for mixing in (space, time):
        torch.nn.init.normal_(mixing.up)
    first = slice(grid.prefix, grid.prefix + grid.positions)
    assert torch.equal(space(x)[:, first], space(other)[:, first])
    assert not torch.equal(time(x + 0)[:, first], time(other.mul_(2))[:, first])
    assert not time(x)[:, : grid.prefix].any()


def test_the_gradients_of_a_factorised_mixer_agree_with_finite_differences() -> None:
    torch.manual_seed(1)
    grid = TokenGrid(1, 2, time=2, prefix=1)
    parts = ChannelMixing(3, 2), SpaceMixing(grid, 2), TimeMixing(grid, 2)
    mixer = FactorisedMixer(*parts).double()
    for weight in mixer.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    x = torch.randn(2, grid.num_tokens, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mixer, (x,))
