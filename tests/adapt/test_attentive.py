from __future__ import annotations

import numpy as np
import pytest
import torch

from losa.adapt.attentive import AttentiveProbe
from losa.adapt.options import SideOptions
from losa.errors import MismatchError
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
@pytest.mark.parametrize("width", [None, 12])
def test_logits_agree_with_the_equations(grid: TokenGrid, width: int | None) -> None:
    spec = spec_of(grid)
    probe = AttentiveProbe(spec, CLASSES, options=SideOptions(width=width))
    disturbed(probe)
    b = standardised(probe, planes_of(spec))
    # Channels of 128 have two heads of 64, and so has an even width.
    e = oracle.attentive(b[-1], array_of(probe.query), pairs_of(probe), heads=2)
    found = array_of(probe(planes_of(spec)))
    np.testing.assert_allclose(found, logits_of(probe, e), atol=1e-4)


def test_it_sees_the_last_tap_alone_and_every_token_of_it() -> None:
    probe = disturbed(AttentiveProbe(spec_of(GRID), CLASSES))
    before = probe(planes_of(probe.spec))
    changed = planes_of(probe.spec)
    changed[:-1] += 1.0
    assert torch.equal(probe(changed), before)
    for token in range(GRID.num_tokens):
        changed = planes_of(probe.spec)
        changed[-1, :, token] += torch.randn(128)
        assert not torch.allclose(probe(changed), before)


def test_a_new_probe_attends_to_all_tokens_nearly_alike() -> None:
    probe = AttentiveProbe(spec_of(GRID), CLASSES)
    tokens = probe.norm1(planes_of(probe.spec)[-1])
    key, _ = probe.to_key_value(tokens).chunk(2, dim=2)
    shares = torch.softmax(probe.to_query(probe.query) @ key.transpose(1, 2), dim=2)
    torch.testing.assert_close(shares, torch.full_like(shares, 1 / 8), atol=0.01, rtol=0.0)


def test_the_start_is_the_authors() -> None:
    torch.manual_seed(0)
    probe = AttentiveProbe(FeatureSpec("wide", (1,), GRID, 384), CLASSES)
    for linear, std in (
        (probe.to_query, 0.02),
        (probe.to_key_value, 0.02),
        (probe.mlp.fc1, 0.02),
        (probe.mlp.fc2, 0.02 / 2**0.5),
    ):
        assert float(linear.weight.detach().std()) == pytest.approx(std, rel=0.05)
        assert not linear.bias.any()
    assert float(probe.query.detach().std()) == pytest.approx(0.02, rel=0.3)


def test_gradient_reaches_every_weight() -> None:
    assert without_gradient(disturbed(AttentiveProbe(spec_of(GRID), CLASSES))) == []


@pytest.mark.parametrize(("width", "r"), [(None, 128), (192, 192)])
def test_the_probe_has_the_parameters_of_its_width_a_third_of_the_channels(
    width: int | None, r: int
) -> None:
    d, classes = 384, 16
    spec = FeatureSpec("vit_s", (11,), TokenGrid(8, 8, prefix=1), d)
    probe = AttentiveProbe(spec, classes, options=SideOptions(width=width))
    cross = r + 2 * d + (r * r + r) + (2 * r * d + 2 * r)
    expected = cross + 2 * r + (8 * r * r + 5 * r) + 2 * r + classes * r + classes
    assert sum(weight.numel() for weight in probe.parameters()) == expected < 500_000


def test_dropout_acts_while_training_only() -> None:
    probe = disturbed(AttentiveProbe(spec_of(GRID), options=SideOptions(dropout=0.5)))
    planes = planes_of(probe.spec)
    assert torch.equal(probe.eval()(planes), probe(planes))
    assert not torch.allclose(probe.train()(planes), probe.eval()(planes))


def test_half_precision_stays_close_under_autocast() -> None:
    probe = disturbed(AttentiveProbe(spec_of(GRID), CLASSES))
    planes = planes_of(probe.spec)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = probe(planes)
    torch.testing.assert_close(half.float(), probe(planes), atol=0.1, rtol=0.1)


def test_planes_of_another_spec_are_refused() -> None:
    probe = AttentiveProbe(spec_of(GRID))
    with pytest.raises(MismatchError, match="planes"):
        probe(planes_of(probe.spec)[:2])
