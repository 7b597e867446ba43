"""A cohort's step is for every trial the one it takes alone, to the bit, whatever the dtype."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from losa.adapt.adaptor import Adaptor
from losa.adapt.cohortstep import CohortStep
from losa.adapt.crew import Crew
from losa.adapt.registry import ADAPTORS
from losa.adapt.train import options_of
from losa.adapt.trial import Position, Trial
from losa.config import AdaptConfig
from losa.device import resolve_compute
from losa.features import FeatureSpec, StoreDtype, TokenGrid
from losa.precision import EncodedPlanes, encode

SPEC = FeatureSpec("tiny", (1, 2, 5, 7), TokenGrid(4, 4, prefix=1), 24, "int8")
KINDS: tuple[tuple[tuple[int, ...], dict[str, Any]], ...] = (
    ((1, 2, 5, 7), {"rank": 4}),
    ((1, 2, 5, 7), {"rank": 8, "token_rank": 4, "dropout": 0.3, "seed": 5}),
    ((1, 5), {"rank": 4}),
    ((1, 2, 7), {"rank": 8, "residual": "sum"}),
    ((1, 2, 5, 7), {"rank": 3}),
    ((7,), {"adaptor": "linear"}),
)


def planes_of(dtype: StoreDtype, batch: int) -> EncodedPlanes:
    """Random planes of all taps, encoded as a store has them."""
    features = torch.randn(4, batch, 17, 24) + 0.2
    quantiser = torch.stack([torch.full((4, 24), 0.2), torch.rand(4, 24) + 0.5], 1)
    found = [
        encode(plane, dtype, 0, quantiser[tap] if dtype == "int8" else None)
        for tap, plane in enumerate(features)
    ]
    values = torch.stack([one.values for one in found])
    scales = [one.scales for one in found if one.scales is not None]
    if not scales:
        return EncodedPlanes(values, dtype, (0,) * 4)
    return EncodedPlanes(values, dtype, (0,) * 4, torch.stack(scales), quantiser)


def trials() -> list[Trial]:
    """A trial of every kind, its weights away from their start."""
    made = []
    for number, (taps, changes) in enumerate(KINDS):
        torch.manual_seed(number)
        config = AdaptConfig(**changes, epochs=2, ema=0.5 if number == 0 else None)
        spec = SPEC.with_taps(taps)
        module = ADAPTORS[config.adaptor](spec, num_classes=3, options=options_of(config))
        for weight in module.parameters():
            torch.nn.init.normal_(weight, std=0.2)
        made.append(Trial(module, config, 3, resolve_compute("cpu", "none")))
    return made


def seen_by(trial: Trial, planes: EncodedPlanes) -> EncodedPlanes:
    """The planes of the trial's taps alone, copied."""
    assert isinstance(trial.module, Adaptor)
    places = [SPEC.taps.index(tap) for tap in trial.module.spec.taps]
    scales = None if planes.token_scales is None else planes.token_scales[places]
    quantiser = None if planes.quantiser is None else planes.quantiser[places]
    return EncodedPlanes(planes.raw[places], planes.dtype, (0,) * len(places), scales, quantiser)


def weights_of(trial: Trial) -> list[Tensor]:
    return [weight.detach() for weight in trial.module.parameters()]


@pytest.mark.parametrize("batch", [1, 5, 10, 12])
def test_batches_of_any_size_give_in_two_threads_what_each_trial_gives_alone(batch: int) -> None:
    # A BLAS rounds some products of few rows otherwise in two threads than in one.
    torch.manual_seed(9)
    planes, labels = planes_of("float16", batch), torch.arange(batch) % 3
    together, alone = trials()[:2] + trials()[:1], trials()[:2] + trials()[:1]
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with Crew(torch.device("cpu")) as crew:
            step = CohortStep(SPEC, crew)
            for trial in together:
                trial.judged.eval()
            logits = step.logits(together, planes)
            for trial, found in zip(alone, logits, strict=True):
                with torch.inference_mode():
                    assert torch.equal(trial.judged.eval()(planes), found)
            step.learn(together, planes, labels, Position(0, 0))
        for trial in alone:
            trial.step(planes, labels, Position(0, 0))
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(together, alone, strict=True):
        assert all(map(torch.equal, weights_of(one), weights_of(other)))


@pytest.mark.parametrize("dtype", ["float16", "int8", "float32"])
def test_steps_and_logits_are_those_of_each_trial_alone(dtype: StoreDtype) -> None:
    torch.manual_seed(9)
    batches = [(planes_of(dtype, size), torch.arange(size) % 3) for size in (6, 6, 2)]
    together, alone = trials(), trials()
    with Crew(torch.device("cpu")) as crew:
        cohort = CohortStep(SPEC, crew)
        for step, (planes, labels) in enumerate(batches):
            cohort.learn(together, planes, labels, Position(0, step))
        for trial in together:
            trial.judged.eval()
        logits = cohort.logits(together, batches[0][0])
    for number, trial in enumerate(alone):
        for step, (planes, labels) in enumerate(batches):
            trial.step(seen_by(trial, planes), labels, Position(0, step))
        pairs = zip(weights_of(trial), weights_of(together[number]), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs), KINDS[number]
        with torch.inference_mode():
            found = trial.judged.eval()(seen_by(trial, batches[0][0]))
        assert torch.equal(logits[number], found), KINDS[number]
