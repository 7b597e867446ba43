"""Packing's claims: its bytes are those that are there, and its cohorts fit."""

from __future__ import annotations

import pytest
import torch

from losa.adapt.adaptor import LoSA
from losa.adapt.folding import Along, FoldedPlanes, down_all
from losa.adapt.packing import packed, trial_bytes
from losa.adapt.registry import ADAPTORS
from losa.adapt.train import options_of
from losa.adapt.trial import Position, Trial
from losa.config import AdaptConfig
from losa.device import resolve_compute
from losa.features import FeatureSpec, TokenGrid

SPEC = FeatureSpec("tiny", (1, 3), TokenGrid(4, 4, prefix=1), 24)


@pytest.mark.parametrize("ema", [None, 0.9])
@pytest.mark.parametrize("name", sorted(ADAPTORS))
def test_weights_are_the_bytes_of_a_trial_after_a_step(name: str, ema: float | None) -> None:
    config = AdaptConfig(adaptor=name, rank=4, batch_size=2, ema=ema)
    module = ADAPTORS[name](SPEC, num_classes=3, options=options_of(config))
    trial = Trial(module, config, 1, resolve_compute("cpu", "none"))
    trial.step(torch.randn(2, 2, 17, 24), torch.tensor([0, 1]), Position())
    trial.keep_if_best(0, None)
    names = {name for name, weight in module.named_parameters() if weight.requires_grad}
    groups = trial.snapshot(Position()).tensors
    saved = sum(
        tensor.nbytes
        for key, tensor in groups.items()
        if key.partition("/")[2].removesuffix("/exp_avg").removesuffix("/exp_avg_sq") in names
    )
    gradients = sum(w.grad.nbytes for w in module.parameters() if w.grad is not None)
    assert trial_bytes(config, SPEC, 3).weights == saved + gradients


def test_products_are_the_bytes_of_the_hidden_units_and_their_gradients() -> None:
    config = AdaptConfig(rank=4, token_rank=8, batch_size=5)
    module = LoSA(SPEC, num_classes=3, options=options_of(config))
    weights = module.weights()
    gain = torch.ones(2, 24)
    planes = FoldedPlanes(torch.randn(2, 5, 17, 24).unbind(), gain, gain, torch.float32)
    with torch.no_grad():
        (found,), _ = down_all(
            planes, "refine", [Along(weights.channel_down, weights.token_down)], module.pooling
        )
    held = found.channels.nbytes + found.tokens.nbytes
    assert trial_bytes(config, SPEC, 3).products == 2 * held


def test_cohorts_fit_and_hold_every_trial_once() -> None:
    sizes = [3, 1, 4, 1, 5, 9, 2, 6]
    found = packed(sizes, 8)
    assert [number for cohort in found for number in cohort] == list(range(8))
    assert all(sum(sizes[n] for n in one) <= 8 or len(one) == 1 for one in found)
