"""A trial's own part of a cohort's step: what follows its products with the planes.

Source: docs/decisions/0015-cohorts.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from losa.adapt.crew import Crew
from losa.adapt.folding import Along, FoldedPlanes, down_all, down_gradients_all
from losa.adapt.fused import Form, Kept, Stream, Weights, kept_units, own_gradients

ROOM: Final = 2**28
"""Bytes of what some trials keep between their forward and their backward."""

Pooled = Float[Tensor, "... b d"]


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """A trial's weights and its products with a batch; ``base`` is everybody's.

    Whoever computes with it consumes the products: the mixers' updates are added to them.
    """

    form: Form
    weights: Weights
    products: Along
    base: Float[Tensor, "... b d"]

    def stream(self, kept: Kept = (None, None)) -> Stream:
        """The hidden units before any mixing has seen another."""
        return Stream(self.form, self.weights, *self._units(), kept)

    def masks(self) -> Kept:
        """Dropout's masks, drawn from the generators as a trial alone draws them."""
        return kept_units(self.form, *self._units())

    @property
    def kept_bytes(self) -> int:
        """What is kept between a forward and its backward.

        Hidden units before and after GELU, what later readers make of them, and dropout's masks.
        """
        h, g = self._units()
        copies = 3 if self.form.dropout else 2
        # Of each unit along the channels, in each sample, by each along the tokens, twice, and by
        # the pooled vectors.
        read = len(h) * h.shape[1] * (2 * len(g) + len(self.form.pooling))
        return copies * (h.nbytes + g.nbytes) + read * h.element_size()

    def _units(self) -> tuple[Tensor, Tensor]:
        return self.products.channels.flatten(0, 1), self.products.tokens.flatten(0, 1)


def lanes_of(planes: FoldedPlanes, forms: Sequence[Form], weights: Sequence[Weights]) -> list[Lane]:
    """The products of a batch with the weights of many trials, which are taken together.

    All forms must have one residual and one pooling.
    """
    with torch.no_grad():
        products, base = down_all(
            planes,
            forms[0].residual,
            [Along(one.channel_down, one.token_down) for one in weights],
            forms[0].pooling,
        )
    return [
        Lane(form, mine, along, base)
        for form, mine, along in zip(forms, weights, products, strict=True)
    ]


def refined(lane: Lane) -> Pooled:
    """The pooled tokens, for nobody who goes back."""
    # Here, not around all lanes: it is a setting of a thread.
    with torch.inference_mode():
        return lane.stream().refine(lane.base.clone())


def gradients_of(
    lanes: Sequence[Lane],
    planes: FoldedPlanes,
    crew: Crew,
    masks: Callable[[int], Kept],
    turn: Callable[[int, Pooled], None],
) -> list[Weights]:
    """Of each lane's loss, the gradients of its weights.

    As many lanes go forward before any comes back as :data:`ROOM` takes: torch's own threads spin
    for milliseconds after each product that they shared, on the cores that the crew is to have.

    Args:
        lanes: of one batch.
        planes: the batch.
        crew: who computes what is a lane's own.
        masks: gives dropout's masks of a lane, by its number.
        turn: is given a lane's number and its pooled tokens, and gives these a gradient.
    """
    own: list[tuple[Weights, Along]] = []
    for few in _fews(lanes, crew):
        found = crew.each(_refined_by, [(lanes[at], masks(at)) for at in few])
        for at, (_, rows) in zip(few, found, strict=True):
            turn(at, rows)
        own += crew.each(_gone_back, found)
        # What they kept is let go before the next few begin.
        del found, rows
    residual = lanes[0].form.residual
    of_planes = down_gradients_all(planes, residual, [along for _, along in own])
    for (of_weights, _), along in zip(own, of_planes, strict=True):
        of_weights.channel_down.add_(along.channels)
        of_weights.token_down.add_(along.tokens)
    return [of_weights for of_weights, _ in own]


def _fews(lanes: Sequence[Lane], crew: Crew) -> Iterator[range]:
    """Numbers of lanes, some at a time, in their order."""
    count = 1
    if crew.count > 1:
        count = max(crew.count, ROOM // max(lane.kept_bytes for lane in lanes))
    for first in range(0, len(lanes), count):
        yield range(first, min(len(lanes), first + count))


def _refined_by(job: tuple[Lane, Kept]) -> tuple[Stream, Pooled]:
    """The pooled tokens, and what the way back starts from."""
    lane, kept = job
    with torch.no_grad():
        stream = lane.stream(kept)
        return stream, stream.refine(lane.base.clone())


def _gone_back(job: tuple[Stream, Pooled]) -> tuple[Weights, Along]:
    """Gradients from that of the pooled tokens, but for what needs the planes."""
    stream, rows = job
    assert rows.grad is not None
    with torch.no_grad():
        return own_gradients(stream, rows.grad)
