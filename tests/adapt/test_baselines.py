from __future__ import annotations

import numpy as np
import pytest
import torch

from losa.adapt.baselines import Linear, LinearAll
from losa.adapt.options import SideOptions
from losa.errors import MismatchError, UsageError
from losa.features import FeatureSpec, TokenGrid
from tests.oracles import side_network as oracle

GRID, NO_PREFIX = TokenGrid(2, 3, prefix=2), TokenGrid(2, 3)


def spec_of(grid: TokenGrid) -> FeatureSpec:
    return FeatureSpec("tiny", (1, 3, 5), grid, 12)


def planes(grid: TokenGrid) -> torch.Tensor:
    return torch.randn(3, 4, grid.num_tokens, 12, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("kind", [Linear, LinearAll])
@pytest.mark.parametrize("grid", [GRID, NO_PREFIX])
def test_probes_agree_with_the_equations(
    kind: type[Linear] | type[LinearAll], grid: TokenGrid
) -> None:
    torch.manual_seed(0)
    probe = kind(spec_of(grid), num_classes=5)
    for parameter in probe.head.parameters():
        torch.nn.init.normal_(parameter)
    mean, std = torch.randn(3, 12), torch.rand(3, 12) + 0.5
    probe.standardise.load(mean, std)

    b = oracle.standardise(
        planes(grid).double().numpy(), mean.double().numpy(), std.double().numpy()
    )
    name = "cls+mean" if grid.prefix else "mean"
    pooled = [oracle.pool(plane, name, grid.prefix) for plane in b]
    e = pooled[-1] if kind is Linear else np.concatenate(pooled, axis=1)
    norm_weight, norm_bias, weight, bias = (
        w.detach().double().numpy() for w in probe.head.parameters()
    )
    expected = oracle.head(e, (norm_weight, norm_bias, weight, bias))
    np.testing.assert_allclose(probe(planes(grid)).detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("kind", [Linear, LinearAll])
def test_a_stack_and_a_list_give_identical_logits(kind: type[Linear] | type[LinearAll]) -> None:
    probe = kind(spec_of(GRID))
    torch.nn.init.normal_(probe.head.linear.weight)
    assert torch.equal(probe(planes(GRID)), probe(list(planes(GRID))))


def test_linear_sees_the_last_tap_alone_and_linear_all_every_one() -> None:
    changed = planes(GRID)
    changed[0] += torch.randn(12)
    for kind, same in ((Linear, True), (LinearAll, False)):
        torch.manual_seed(0)
        probe = kind(spec_of(GRID))
        torch.nn.init.normal_(probe.head.linear.weight)
        assert torch.equal(probe(planes(GRID)), probe(changed)) is same


@pytest.mark.parametrize("kind", [Linear, LinearAll])
def test_the_pool_option_and_the_planes_are_checked(kind: type[Linear] | type[LinearAll]) -> None:
    assert kind(spec_of(GRID), options=SideOptions(pool="cls")).pool.name == "cls"
    with pytest.raises(UsageError, match="--pool"):
        kind(spec_of(NO_PREFIX), options=SideOptions(pool="cls"))
    with pytest.raises(MismatchError, match="planes"):
        kind(spec_of(GRID))(planes(GRID)[:2])
