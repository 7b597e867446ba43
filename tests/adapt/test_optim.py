"""The recipe's claims, against AdamW written out in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from losa.adapt import optim
from losa.config import AdaptConfig


def small_module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2, bias=False))


def test_the_rate_warms_up_in_a_line_and_falls_as_half_a_cosine() -> None:
    rates = [optim.cosine_lr(s, lr=2.0, warmup_steps=10, steps=110) for s in range(110)]
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    want = [1.0 + math.cos(math.pi * i / 100) for i in range(100)]
    assert rates[10:] == pytest.approx(want)


def test_a_short_training_still_reaches_its_rate() -> None:
    rates = [optim.cosine_lr(s, lr=1.0, warmup_steps=50, steps=10) for s in range(10)]
    assert max(rates) == 1.0
    assert optim.cosine_lr(0, lr=1.0, warmup_steps=5, steps=1) == 1.0


def test_only_matrices_decay() -> None:
    module = small_module()
    groups = optim.parameter_groups(module, 0.3)
    decayed = {id(p) for p in groups[0]["params"]}
    assert decayed == {id(module[0].weight), id(module[2].weight)}  # type: ignore[index]  # a Sequential
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert len(groups[1]["params"]) == 3


class Headed(nn.Module):
    """A module with a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3, 4)
        self.head = nn.Linear(4, 2)


def test_the_head_has_rates_of_its_own_and_its_vectors_decay_as_little() -> None:
    module = Headed()
    optimiser = optim.build_optimiser(
        module, lr=0.1, weight_decay=0.3, head=optim.HeadRates(0.5, 0.7)
    )
    optim.set_lr(optimiser, 0.2)
    found = {id(p): group for group in optimiser.param_groups for p in group["params"]}
    rates = {name: (found[id(p)]["lr"], found[id(p)]["weight_decay"])
             for name, p in module.named_parameters()}  # fmt: skip
    assert rates == {
        "body.weight": (0.2, 0.3), "body.bias": (0.2, 0.0),
        "head.weight": (0.1, 0.7), "head.bias": (0.1, 0.0),
    }  # fmt: skip


def test_without_rates_of_its_own_the_head_shares_the_groups() -> None:
    assert len(optim.parameter_groups(Headed(), 0.3)) == 2
    assert optim.head_rates(AdaptConfig(lr=0.01)) == optim.HeadRates(1.0, None)
    assert optim.head_rates(AdaptConfig(lr=0.01, head_lr=0.04)).lr_share == 4.0


def test_frozen_parameters_are_left_out() -> None:
    module = small_module()
    module.requires_grad_(requires_grad=False)
    assert not any(group["params"] for group in optim.parameter_groups(module, 0.3))


def test_a_step_is_adamw_as_its_paper_writes_it() -> None:
    module = nn.Linear(3, 1)
    optimiser = optim.build_optimiser(module, lr=0.1, weight_decay=0.5)
    weight = module.weight.detach().numpy().astype("f8").copy()
    first, second = np.zeros_like(weight), np.zeros_like(weight)
    random = np.random.default_rng(0)
    for step in range(1, 4):
        optim.set_lr(optimiser, 0.1 / step)
        grad = random.standard_normal(weight.shape)
        module.weight.grad = torch.tensor(grad, dtype=torch.float32)
        optimiser.step()
        first, second = 0.9 * first + 0.1 * grad, 0.999 * second + 0.001 * grad**2
        root = np.sqrt(second / (1 - 0.999**step)) + 1e-8
        weight -= 0.1 / step * (0.5 * weight + first / (1 - 0.9**step) / root)
    np.testing.assert_allclose(module.weight.detach().numpy(), weight, rtol=1e-5)


def test_an_optimiser_goes_on_from_its_moments_to_the_last_bit() -> None:
    def train(module: nn.Module, optimiser: torch.optim.AdamW, seeds: range) -> None:
        for seed in seeds:
            torch.manual_seed(seed)
            optimiser.zero_grad()
            module(torch.randn(5, 4)).square().sum().backward()
            optimiser.step()

    whole, halved = small_module(), small_module()
    train(whole, optim.build_optimiser(whole, lr=0.1, weight_decay=0.1), range(6))
    before = optim.build_optimiser(halved, lr=0.1, weight_decay=0.1)
    train(halved, before, range(3))
    kept = {name: t.clone() for name, t in optim.moments(before, halved).items()}
    after = optim.build_optimiser(halved, lr=0.1, weight_decay=0.1)
    optim.load_moments(after, halved, kept)
    train(halved, after, range(3, 6))
    for ours, theirs in zip(halved.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_moments_of_another_module_are_refused() -> None:
    module, other = nn.Linear(3, 1), nn.Linear(4, 1)
    optimiser = optim.build_optimiser(module, lr=0.1, weight_decay=0.1)
    module(torch.ones(2, 3)).sum().backward()
    optimiser.step()
    kept = optim.moments(optimiser, module)
    with pytest.raises(ValueError, match="do not fit"):
        optim.load_moments(optim.build_optimiser(other, lr=0.1, weight_decay=0.1), other, kept)
