from __future__ import annotations

import numpy as np
import pytest
import torch

from losa.adapt.lst import LST
from losa.adapt.options import SideOptions
from losa.errors import MismatchError, UsageError
from losa.features import FeatureSpec, TokenGrid
from tests.adapt.rivals import (
    CLASSES,
    GRID,
    NO_PREFIX,
    array_of,
    disturbed,
    logits_of,
    pairs_of,
    planes_of,
    spec_of,
    standardised,
    without_gradient,
)
from tests.oracles import rivals as oracle


@pytest.mark.parametrize("grid", [GRID, NO_PREFIX])
@pytest.mark.parametrize("taps", [(1, 3, 5), (4,)])
def test_logits_agree_with_the_equations(grid: TokenGrid, taps: tuple[int, ...]) -> None:
    spec = spec_of(grid, taps)
    network = LST(spec, CLASSES, options=SideOptions(width=12))
    disturbed(network)
    b = standardised(network, planes_of(spec))
    pairs = pairs_of(network)
    downs = [pairs[f"downs.{tap}"] for tap in range(len(taps))]
    # Channels of 128 have two heads of 64, and so has the ladder.
    state = oracle.ladder(
        b,
        downs,
        array_of(network.gates),
        [pairs_of(network.blocks[tap]) for tap in range(len(taps))],
        heads=2,
    )
    name = "cls+mean" if grid.prefix else "mean"
    e = oracle.raised(oracle.norm(state, pairs["norm"]), pairs["up"], name, grid.prefix)
    found = array_of(network(planes_of(spec)))
    np.testing.assert_allclose(found, logits_of(network, e), atol=1e-4)


def test_the_gates_begin_at_the_mean_of_the_ladder_and_its_tap() -> None:
    network = LST(spec_of(GRID))
    assert network.gates.tolist() == [0.0, 0.0]
    planes = planes_of(network.spec)
    seen = []
    network.blocks[1].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    network(planes)
    state, taken = network.blocks[0](network.downs[0](planes[0])), network.downs[1](planes[1])
    torch.testing.assert_close(seen[0], (state + taken) / 2)


def test_an_open_gate_lets_nothing_of_its_tap_in() -> None:
    network = disturbed(LST(spec_of(GRID)))
    changed = planes_of(network.spec)
    changed[1] += torch.randn(128)
    assert not torch.allclose(network(changed), network(planes_of(network.spec)))
    with torch.no_grad():
        network.get_parameter("gates")[0] = 100.0
    assert torch.equal(network(changed), network(planes_of(network.spec)))


def test_gradient_reaches_every_weight() -> None:
    assert without_gradient(disturbed(LST(spec_of(GRID), CLASSES))) == []


@pytest.mark.parametrize(("width", "r"), [(None, 48), (32, 32)])
def test_the_ladder_has_the_parameters_of_its_width_an_eighth_of_the_channels(
    width: int | None, r: int
) -> None:
    d, k, classes = 384, 4, 16
    spec = FeatureSpec("vit_s", (2, 5, 8, 11), TokenGrid(8, 8, prefix=1), d)
    network = LST(spec, classes, options=SideOptions(width=width))
    block = 12 * r * r + 13 * r
    head = 2 * 2 * d + classes * 2 * d + classes
    expected = k * (d * r + r + block) + (k - 1) + 2 * r + (r * d + d) + head
    assert sum(weight.numel() for weight in network.parameters()) == expected < 500_000


def test_dropout_acts_while_training_only() -> None:
    network = disturbed(LST(spec_of(GRID), options=SideOptions(dropout=0.5)))
    planes = planes_of(network.spec)
    assert torch.equal(network.eval()(planes), network(planes))
    assert not torch.allclose(network.train()(planes), network.eval()(planes))


def test_the_ladder_sums_up_in_full_precision_under_autocast() -> None:
    network = disturbed(LST(spec_of(GRID), CLASSES))
    planes = planes_of(network.spec)
    seen = []
    for position in range(3):
        block = network.get_submodule(f"blocks.{position}")
        block.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(planes)
    assert seen == [torch.float32] * 3
    torch.testing.assert_close(half.float(), network(planes), atol=0.1, rtol=0.1)


def test_the_pool_and_the_planes_are_checked() -> None:
    assert LST(spec_of(GRID), options=SideOptions(pool="cls")).pool.name == "cls"
    with pytest.raises(UsageError, match="--pool"):
        LST(spec_of(NO_PREFIX), options=SideOptions(pool="cls"))
    with pytest.raises(MismatchError, match="planes"):
        LST(spec_of(GRID))(planes_of(spec_of(GRID))[:2])
