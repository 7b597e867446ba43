"""The average of weights, against the recurrence in plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from losa.adapt.ema import WeightAverage, average_decay


def module_of() -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    module[1].requires_grad_(requires_grad=False)
    return module


def changed(module: nn.Module, step: int) -> None:
    random = torch.Generator().manual_seed(step)
    with torch.no_grad():
        module[0].weight.copy_(torch.randn(2, 3, generator=random))  # type: ignore[index]  # a Sequential


def test_the_average_follows_the_recurrence() -> None:
    module = module_of()
    want = module[0].weight.detach().numpy().astype("f8").copy()  # type: ignore[index]  # a Sequential
    average = WeightAverage(module, 0.9)
    for step in range(200):
        changed(module, step)
        average.follow(step)
        decay = min(0.9, (1 + step) / (10 + step))
        want = decay * want + (1 - decay) * module[0].weight.detach().numpy()  # type: ignore[index]  # a Sequential
    np.testing.assert_allclose(average.weights()["0.weight"], want, atol=1e-6)


def test_what_does_not_learn_stays_and_the_module_is_left_alone() -> None:
    module = module_of()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    average = WeightAverage(module, 0.5)
    average.follow(0)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
        assert torch.equal(average.weights()[name], value)
    assert not any(weight.requires_grad for weight in average.module.parameters())


def test_a_restored_average_goes_on_to_the_same_bits() -> None:
    module = module_of()
    whole, halved = WeightAverage(module, 0.99), WeightAverage(module, 0.99)
    for step in range(6):
        changed(module, step)
        whole.follow(step)
        if step == 3:
            halved.restore({name: value.clone() for name, value in whole.weights().items()})
        elif step > 3:
            halved.follow(step)
    assert all(torch.equal(whole.weights()[name], halved.weights()[name]) for name in before(whole))


def before(average: WeightAverage) -> list[str]:
    return list(average.weights())


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9999])
def test_the_decay_rises_to_what_was_asked_for_and_no_higher(decay: float) -> None:
    found = [average_decay(decay, step) for step in range(0, 200_000, 777)]
    assert found == sorted(found)
    assert max(found) == decay
