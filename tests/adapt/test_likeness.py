"""Whether a trial's numbers among others are those it has alone is found by trying it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import pytest
import torch
from torch import Tensor

from losa.adapt import likeness
from losa.adapt.adaptor import LoSA
from losa.adapt.crew import Crew
from losa.adapt.folding import FoldedPlanes
from losa.adapt.fused import Form, Weights, pooled
from losa.adapt.likeness import Likeness
from losa.adapt.options import SideOptions
from losa.features import FeatureSpec, TokenGrid
from losa.precision import EncodedPlanes

SPEC = FeatureSpec("tiny", (1, 3), TokenGrid(4, 4), 24)


def planes_of(batch: int) -> EncodedPlanes:
    torch.manual_seed(batch)
    return EncodedPlanes(torch.randn(2, batch, *SPEC.shape[1:]).half(), "float16", (0, 0))


def asked(found: Likeness, modules: Sequence[LoSA], batch: int, *, is_learning: bool) -> list[bool]:
    planes = planes_of(batch)

    def folded() -> FoldedPlanes:
        return modules[0].folded(planes)

    return found.of(modules, planes, folded, is_learning=is_learning)


def modules_of(*ranks: int) -> list[LoSA]:
    return [LoSA(SPEC, num_classes=3, options=SideOptions(rank=rank)) for rank in ranks]


@pytest.mark.parametrize("is_learning", [True, False])
def test_trials_whose_last_bit_differs_are_told_from_the_others(
    monkeypatch: pytest.MonkeyPatch, *, is_learning: bool
) -> None:
    def rounded_otherwise(planes: FoldedPlanes, form: Form, weights: Weights) -> Tensor:
        found = pooled(planes, form, weights)
        return found * (1 + 2**-23) if weights.channel_down.shape[1] == 8 else found

    monkeypatch.setattr(likeness, "pooled", rounded_otherwise)
    with Crew(torch.device("cpu")) as crew:
        found = asked(Likeness(crew), modules_of(4, 8, 4), 16, is_learning=is_learning)
    assert found == [True, False, True]


def test_it_is_tried_once_for_each_case_and_draws_from_nobody() -> None:
    tried = []
    modules = modules_of(4, 8)
    planes = planes_of(16)

    def folded() -> FoldedPlanes:
        tried.append(len(planes.raw[0]))
        return modules[0].folded(planes)

    with Crew(torch.device("cpu")) as crew:
        found = Likeness(crew)
        for batch in (16, 4, 16, 4):
            planes = planes_of(batch)
            state = torch.get_rng_state()
            found.of(modules, planes, folded, is_learning=True)
            assert torch.equal(torch.get_rng_state(), state)
        assert tried == [16, 4]
        found.of(modules[:1], planes, folded, is_learning=True)
    assert tried == [16, 4, 4]


def test_weights_that_stand_at_zero_are_not_what_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (module,) = modules_of(4)
    for weight in module.parameters():
        torch.nn.init.zeros_(weight)
    seen: list[Tensor] = []

    def noted(planes: FoldedPlanes, form: Form, weights: Weights) -> Tensor:
        seen.extend(getattr(weights, field.name) for field in fields(weights))
        return pooled(planes, form, weights)

    monkeypatch.setattr(likeness, "pooled", noted)
    with Crew(torch.device("cpu")) as crew:
        asked(Likeness(crew), [module], 16, is_learning=True)
    assert len(seen) == 4
    assert all(part.all() for part in seen)
