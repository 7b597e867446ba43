"""A cohort's algebra is that of each network alone, and goes back in time for its memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields

import pytest
import torch
from torch import Tensor

from losa.adapt import lanes
from losa.adapt.adaptor import LoSA
from losa.adapt.crew import Crew, Item, Result
from losa.adapt.folding import FoldedPlanes
from losa.adapt.fused import Form, Weights, pooled
from losa.adapt.lanes import gradients_of, lanes_of, refined
from losa.adapt.options import SideOptions
from losa.features import FeatureSpec, TokenGrid
from losa.precision import EncodedPlanes

SPEC = FeatureSpec("tiny", (1, 2, 5), TokenGrid(4, 4, prefix=1), 24)
RANKS = (8, 4, 4, 8)


class CountingCrew(Crew):
    """A crew that counts how often it is called."""

    calls = 0

    def each(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """As a crew does it."""
        self.calls += 1
        return super().each(work, items)


@contextmanager
def two_threads() -> Iterator[CountingCrew]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        crew = CountingCrew(torch.device("cpu"))
        with crew:
            yield crew
    finally:
        torch.set_num_threads(before)


def network(rank: int) -> LoSA:
    options = SideOptions(rank=rank, pool="cls+mean")
    module = LoSA(SPEC, num_classes=3, options=options)
    for weight in module.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return module


def parts(weights: Weights) -> list[Tensor]:
    return [getattr(weights, field.name) for field in fields(weights)]


def group(batch: int) -> tuple[FoldedPlanes, list[Form], list[Weights]]:
    torch.manual_seed(3)
    modules = [network(rank) for rank in RANKS]
    planes = EncodedPlanes(torch.randn(3, batch, *SPEC.shape[1:]).half(), "float16", (0,) * 3)
    with torch.no_grad():
        weights = [module.weights() for module in modules]
    return modules[0].folded(planes), [module.form() for module in modules], weights


def back(planes: FoldedPlanes, found: Sequence[lanes.Lane], crew: Crew) -> list[Weights]:
    def turn(_: int, rows: Tensor) -> None:
        rows.grad = rows.sin()

    return gradients_of(found, planes, crew, lambda _: (None, None), turn)


def test_pooled_tokens_and_gradients_are_those_of_each_network_alone() -> None:
    planes, forms, weights = group(16)
    with two_threads() as crew:
        rows = crew.each(refined, lanes_of(planes, forms, weights))
        gradients = back(planes, lanes_of(planes, forms, weights), crew)
    for form, mine, row, got in zip(forms, weights, rows, gradients, strict=True):
        leaves = [part.requires_grad_() for part in parts(mine)]
        alone = pooled(planes, form, mine)
        torch.testing.assert_close(row, alone.detach())
        expected = torch.autograd.grad(alone, leaves, alone.detach().sin())
        torch.testing.assert_close(parts(got), list(expected))


@pytest.mark.parametrize(("room", "calls"), [(2**28, 2), (1, 4)])
def test_as_many_as_memory_takes_go_there_before_any_comes_back(
    monkeypatch: pytest.MonkeyPatch, room: int, calls: int
) -> None:
    planes, forms, weights = group(16)
    with two_threads() as crew:
        expected = back(planes, lanes_of(planes, forms, weights), crew)
        crew.calls = 0
        monkeypatch.setattr(lanes, "ROOM", room)
        gradients = back(planes, lanes_of(planes, forms, weights), crew)
        assert crew.calls == calls
    for one, other in zip(gradients, expected, strict=True):
        assert all(map(torch.equal, parts(one), parts(other)))


def test_what_is_kept_counts_hidden_units_and_what_reads_them() -> None:
    planes, forms, weights = group(2)
    lane = lanes_of(planes, forms, weights)[1]
    taps, tokens, channels = SPEC.shape
    rank, pooling = RANKS[1], 2
    units = 2 * taps * rank * 2 * (tokens + channels)
    read = taps * rank * 2 * (2 * taps * rank + pooling)
    assert lane.kept_bytes == 4 * (units + read)
