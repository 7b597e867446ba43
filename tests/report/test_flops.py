"""FLOPs of adaptors against a count of what torch runs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from losa.adapt.adaptor import LoSA, SideOptions
from losa.adapt.checkpoint import AdaptorCard
from losa.adapt.registry import ADAPTORS, build_adaptor
from losa.adapt.train import card_of
from losa.config import AdaptConfig
from losa.extract.profiles import profile_of
from losa.features import FeatureSpec, TokenGrid
from losa.report.flops import RULES, adaptor_flops, backbone_flops
from tests.adapt.memory_store import separable_store

SPECS = {
    "with a prefix": FeatureSpec("vit_s", (3, 7, 11), TokenGrid(4, 3, prefix=1), 24),
    "patches alone": FeatureSpec("vit_s", (2, 5), TokenGrid(3, 3), 40),
}
OPTIONS = {
    "defaults": SideOptions(),
    "ranks": SideOptions(rank=3, token_rank=5, pool="mean"),
    "width": SideOptions(width=12),
}


def card(name: str, spec: FeatureSpec, options: SideOptions, classes: int = 7) -> AdaptorCard:
    base = card_of(separable_store(), AdaptConfig(device="cpu", amp_dtype="none"))
    names = tuple(map(str, range(classes)))
    return replace(base, adaptor=name, spec=spec, options=options, classes=names)


def counted(of: AdaptorCard) -> int:
    adaptor = build_adaptor(of.adaptor, of.spec, len(of.classes), of.options).eval()
    forward = adaptor.plain if isinstance(adaptor, LoSA) else adaptor
    taps, tokens, channels = of.spec.shape
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        forward(torch.randn(taps, 1, tokens, channels))
    return int(counter.get_total_flops())


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("name", ADAPTORS)
def test_the_formula_is_what_torch_counts(
    name: str, spec: FeatureSpec, options: SideOptions
) -> None:
    of = card(name, spec, options)
    assert adaptor_flops(of) == counted(of) > 0


def test_every_adaptor_has_a_rule() -> None:
    assert set(RULES) == set(ADAPTORS)


def test_what_has_no_rule_has_no_figure() -> None:
    video = replace(SPECS["patches alone"], grid=TokenGrid(2, 2, time=4))
    assert adaptor_flops(card("losa", video, SideOptions())) is None
    assert adaptor_flops(replace(card("losa", video, SideOptions()), adaptor="own")) is None


def test_a_backbone_counts_to_the_last_tap_at_the_size_it_was_run_at() -> None:
    name = profile_of("dinov2_s").name
    spec = FeatureSpec(name, (2, 8), TokenGrid(8, 8, prefix=1), 384)
    of = replace(card("losa", spec, SideOptions()), preprocessing={"img_size": [112, 112]})
    assert backbone_flops(of) == profile_of("dinov2_s", 112).flops(9)
    assert backbone_flops(replace(of, spec=replace(spec, backbone="another"))) is None
    assert backbone_flops(replace(of, preprocessing={})) is None
