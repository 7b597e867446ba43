from __future__ import annotations

import numpy as np
import pytest
import torch

from losa.adapt.head import PoolName
from losa.adapt.options import SideOptions
from losa.adapt.summary import SummaryAttention
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
from tests.oracles.side_network import pool as pool_of


@pytest.mark.parametrize(
    ("grid", "pool", "heads"),
    [(GRID, "auto", 6), (GRID, "mean", 3), (GRID, "cls", 3), (NO_PREFIX, "auto", 3)],
)
def test_logits_agree_with_the_equations(grid: TokenGrid, pool: PoolName, heads: int) -> None:
    spec = spec_of(grid)
    network = SummaryAttention(spec, CLASSES, options=SideOptions(pool=pool, width=12))
    disturbed(network)
    b = standardised(network, planes_of(spec))
    parts = {"auto": ("cls", "mean") if grid.prefix else ("mean",)}.get(pool, (pool,))
    summaries = [pool_of(plane, part, grid.prefix) for plane in b for part in parts]
    e = oracle.summary_attention(
        np.stack(summaries, axis=1), array_of(network.query), pairs_of(network), heads
    )
    found = array_of(network(planes_of(spec)))
    np.testing.assert_allclose(found, logits_of(network, e), atol=1e-4)


def test_it_sees_the_cls_and_mean_tokens_of_every_tap_and_nothing_else() -> None:
    network = disturbed(SummaryAttention(spec_of(GRID), CLASSES))
    before = network(planes_of(network.spec))
    for tap in range(3):
        for token, is_seen in ((0, True), (1, False), (2, True)):
            changed = planes_of(network.spec)
            changed[tap, :, token] += torch.randn(128)
            assert torch.allclose(network(changed), before, atol=1e-5) is not is_seen
    swapped = planes_of(network.spec)
    swapped[:, :, [2, 7]] = swapped[:, :, [7, 2]]
    torch.testing.assert_close(network(swapped), before)


def test_gradient_reaches_every_weight() -> None:
    assert without_gradient(disturbed(SummaryAttention(spec_of(GRID), CLASSES))) == []


@pytest.mark.parametrize(("width", "r"), [(None, 256), (64, 64)])
def test_it_has_the_parameters_of_its_width_two_thirds_of_the_channels(
    width: int | None, r: int
) -> None:
    d, classes = 384, 16
    spec = FeatureSpec("vit_s", (2, 5, 8, 11), TokenGrid(8, 8, prefix=1), d)
    network = SummaryAttention(spec, classes, options=SideOptions(width=width))
    expected = d + 3 * 2 * d + 3 * d * r + (r * d + d) + 2 * d + classes * d + classes
    assert sum(weight.numel() for weight in network.parameters()) == expected < 500_000
    assert network.heads == 8


def test_dropout_acts_while_training_only() -> None:
    network = disturbed(SummaryAttention(spec_of(GRID), options=SideOptions(dropout=0.5)))
    planes = planes_of(network.spec)
    assert torch.equal(network.eval()(planes), network(planes))
    assert not torch.allclose(network.train()(planes), network.eval()(planes))


def test_half_precision_stays_close_under_autocast() -> None:
    network = disturbed(SummaryAttention(spec_of(GRID), CLASSES))
    planes = planes_of(network.spec)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(planes)
    torch.testing.assert_close(half.float(), network(planes), atol=0.1, rtol=0.1)


def test_the_pool_and_the_planes_are_checked() -> None:
    with pytest.raises(UsageError, match="--pool"):
        SummaryAttention(spec_of(NO_PREFIX), options=SideOptions(pool="cls+mean"))
    with pytest.raises(MismatchError, match="planes"):
        SummaryAttention(spec_of(GRID))(planes_of(spec_of(GRID))[:2])
