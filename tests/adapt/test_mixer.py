from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from losa.adapt.mixer import ChannelMixing, Mixer, Order, TokenMixing
from tests.oracles import side_network as oracle


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
