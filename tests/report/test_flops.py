"""FLOPs of adaptors against a count of what torch runs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from losa.adapt.adaptor import LoSA
from losa.adapt.checkpoint import AdaptorCard
from losa.adapt.options import SideOptions
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
    "prefixes of clips": FeatureSpec("vit_s", (2, 5), TokenGrid(3, 3, time=4, prefix=2), 40),
    "prefixes of steps": FeatureSpec(
        "vit_s", (2, 5), TokenGrid(3, 3, time=4, prefix=8, is_prefix_per_step=True), 40
    ),
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
    taps, tokens, channels = adaptor.spec.shape if isinstance(adaptor, LoSA) else of.spec.shape
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


@pytest.mark.parametrize(
    "options",
    [
        SideOptions(token_mixing="space", time_rank=None),
        SideOptions(token_mixing="time"),
        SideOptions(token_mixing="joint"),
        SideOptions(time_rank=2, token_rank=3),
        SideOptions(clip_frames=2),
    ],
)
@pytest.mark.parametrize("name", ["prefixes of clips", "prefixes of steps"])
def test_the_formula_is_what_torch_counts_however_clips_are_mixed(
    name: str, options: SideOptions
) -> None:
    of = card("losa", SPECS[name], options)
    assert adaptor_flops(of) == counted(of) > 0


def test_what_has_no_rule_has_no_figure() -> None:
    image = SPECS["patches alone"]
    assert adaptor_flops(replace(card("losa", image, SideOptions()), adaptor="own")) is None


def test_a_clip_costs_a_backbone_of_images_its_frames() -> None:
    grid = TokenGrid(8, 8, time=2, prefix=1)
    spec = FeatureSpec(profile_of("dinov2_s").name, (2, 8), grid, 384)
    preprocessing = {"img_size": [112, 112], "clip": {"frames": 6}}
    of = replace(card("losa", spec, SideOptions()), preprocessing=preprocessing)
    assert backbone_flops(of) == 6 * profile_of("dinov2_s", 112).flops(9)


def test_a_backbone_counts_to_the_last_tap_at_the_size_it_was_run_at() -> None:
    name = profile_of("dinov2_s").name
    spec = FeatureSpec(name, (2, 8), TokenGrid(8, 8, prefix=1), 384)
    of = replace(card("losa", spec, SideOptions()), preprocessing={"img_size": [112, 112]})
    assert backbone_flops(of) == profile_of("dinov2_s", 112).flops(9)
    assert backbone_flops(replace(of, spec=replace(spec, backbone="another"))) is None
    assert backbone_flops(replace(of, preprocessing={})) is None
