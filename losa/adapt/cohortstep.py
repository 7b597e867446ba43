"""A step of many trials on one batch, and their logits: what they share is computed once.

LoSA trials that see the same bases are a group: of each piece of a plane, while it is in cache, all
their down-projections are one product along the channels and one along the tokens, whatever their
ranks (:func:`losa.adapt.folding.down_all`). What follows is low-rank, a trial's own, and small:
it is done trial by trial, on a CPU by as many threads as there are cores, for many trials before
anything is done with all threads.
A trial's numbers go through the same kernels as alone, so that it takes the same steps to the bit.

All other trials share the batch: other adaptors, mixup, mixers that normalise, that are one for all
taps or that start at the first plane, and on a CPU ranks
that :func:`losa.adapt.folding.can_lie_beside` refuses.

Source: docs/decisions/0015-cohorts.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from losa.adapt.adaptor import Adaptor, LoSA
from losa.adapt.crew import Crew
from losa.adapt.folding import Along, FoldedPlanes, can_lie_beside, down_all, down_gradients_all
from losa.adapt.fused import Kept, Stream, Weights, kept_units, own_gradients
from losa.adapt.trial import Position, Trial, seed_generators
from losa.features import FeatureSpec
from losa.precision import EncodedPlanes

ROOM: Final = 2**28
"""Bytes of hidden units that are kept between a forward and its backward, of a few trials."""


class _Bases(NamedTuple):
    """What trials must have in common for their products to be taken together."""

    taps: tuple[int, ...]
    residual: str
    pool: str
    standardise: str


@dataclass(frozen=True, slots=True, eq=False)
class _Lane:
    """A trial with its part of a batch's products; ``base`` is everybody's."""

    trial: Trial
    module: LoSA
    weights: Weights
    products: Along
    base: Float[Tensor, "... b d"]

    def stream(self, kept: Kept = (None, None)) -> Stream:
        """The hidden units before any mixing has seen another."""
        h, g = self.products.channels.flatten(0, 1), self.products.tokens.flatten(0, 1)
        return Stream(self.module.form(), self.weights, h, g, kept)


class CohortStep:
    """Steps and logits of trials whose batches hold the planes of ``spec``.

    Args:
        spec: what is read: the taps of all trials.
        crew: who computes what is a trial's own.
    """

    def __init__(self, spec: FeatureSpec, crew: Crew) -> None:
        self._spec = spec
        self._crew = crew

    def learn(
        self,
        trials: Sequence[Trial],
        planes: EncodedPlanes,
        labels: Int64[Tensor, "b"],
        position: Position,
    ) -> None:
        """Let every trial take the step at ``position``, as :meth:`Trial.step` does."""
        alone, groups = _groups(trials, [trial.module for trial in trials], is_learning=True)
        for trial, module in alone:
            trial.step(self._planes_of(module, planes), labels, position)
        for group in groups:
            self._learn_together(group, planes, labels, position)

    def logits(self, trials: Sequence[Trial], planes: EncodedPlanes) -> list[Float[Tensor, "b y"]]:
        """Logits of one batch by what val judges of each trial, which must be in eval mode."""
        judged = [trial.judged for trial in trials]
        found: dict[int, Tensor] = {}
        alone, groups = _groups(trials, judged, is_learning=False)
        with torch.inference_mode():
            for trial, module in alone:
                with trial.compute.autocast():
                    found[id(trial)] = module(self._planes_of(module, planes)).float()
            for group in groups:
                lanes, _ = self._lanes(group, planes)
                for lane, rows in zip(lanes, self._crew.each(_refined, lanes), strict=True):
                    with lane.trial.compute.autocast():
                        found[id(lane.trial)] = lane.module.of_pooled(rows).float()
        return [found[id(trial)] for trial in trials]

    def _learn_together(
        self,
        group: Sequence[tuple[Trial, LoSA]],
        planes: EncodedPlanes,
        labels: Int64[Tensor, "b"],
        position: Position,
    ) -> None:
        for _, module in group:
            module.train()
        lanes, folded = self._lanes(group, planes)
        losses, own = [], []
        for few in _few(lanes, self._at_once(lanes)):
            kept = [_masks(lane, position) for lane in few]
            found = self._crew.each(_refined_by, list(zip(few, kept, strict=True)))
            # Heads, losses and optimisers with all threads, as alone: on the number of threads
            # the rounding of some of their sums depends.
            for lane, (_, rows) in zip(few, found, strict=True):
                loss = _loss(lane, rows.requires_grad_(), labels)
                losses.append(lane.trial.backward(loss))
            own += self._crew.each(_own_gradients, found)
            # What they kept is let go before the next few begin.
            del found, kept, rows, loss
        residual = lanes[0].module.options.residual
        of_planes = down_gradients_all(folded, residual, [along for _, along in own])
        for lane, loss, (of_weights, _), along in zip(lanes, losses, own, of_planes, strict=True):
            of_weights.channel_down.add_(along.channels)
            of_weights.token_down.add_(along.tokens)
            lane.module.set_gradients(of_weights)
            lane.trial.finish(loss, position)

    def _at_once(self, lanes: Sequence[_Lane]) -> int:
        """How many trials go through their algebra before anything is done with all threads.

        Many: torch's own threads spin for milliseconds after each of their products, on the cores
        that the crew is to have. But what they have computed is kept until they go back.
        """
        if self._crew.count == 1:
            return 1
        return max(self._crew.count, ROOM // max(map(_kept_bytes, lanes)))

    def _lanes(
        self, group: Sequence[tuple[Trial, LoSA]], planes: EncodedPlanes
    ) -> tuple[list[_Lane], FoldedPlanes]:
        trial, module = group[0]
        with trial.compute.autocast():
            folded = module.folded(self._planes_of(module, planes))
        with torch.no_grad():
            weights = [module.weights() for _, module in group]
            products, base = down_all(
                folded,
                module.options.residual,
                [Along(one.channel_down, one.token_down) for one in weights],
                module.pooling,
            )
        lanes = [
            _Lane(trial, module, mine, along, base)
            for (trial, module), mine, along in zip(group, weights, products, strict=True)
        ]
        return lanes, folded

    def _planes_of(self, module: nn.Module, planes: EncodedPlanes) -> EncodedPlanes:
        """The planes of a batch that a module sees; copied only where no stride leads to them."""
        assert isinstance(module, Adaptor)
        places = [self._spec.taps.index(tap) for tap in module.spec.taps]
        if len(places) == len(self._spec.taps):
            return planes
        return EncodedPlanes(
            _taken(planes.raw, places),
            planes.dtype,
            tuple(planes.exponents[place] for place in places),
            None if planes.token_scales is None else _taken(planes.token_scales, places),
            None if planes.quantiser is None else _taken(planes.quantiser, places),
        )


def _groups(
    trials: Sequence[Trial], modules: Sequence[nn.Module], *, is_learning: bool
) -> tuple[list[tuple[Trial, nn.Module]], list[list[tuple[Trial, LoSA]]]]:
    """Trials that go alone, and those whose products are taken together."""
    alone: list[tuple[Trial, nn.Module]] = []
    groups: dict[_Bases, list[tuple[Trial, LoSA]]] = {}
    for trial, module in zip(trials, modules, strict=True):
        is_mixed = is_learning and trial.config.mixup > 0
        if is_mixed or not isinstance(module, LoSA) or not goes_together(module, trial):
            alone.append((trial, module))
            continue
        bases = _Bases(
            module.spec.taps, module.options.residual, module.pool.name, trial.config.standardise
        )
        groups.setdefault(bases, []).append((trial, module))
    return alone, list(groups.values())


def goes_together(module: LoSA, trial: Trial) -> bool:
    """Whether a trial's products with planes may be taken together with others'."""
    options = module.options
    is_otherwise = options.mixer_norm or not module.can_be_folded
    device = trial.compute.device
    return not is_otherwise and can_lie_beside(options.ranks, module.spec.shape, device)


def _kept_bytes(lane: _Lane) -> int:
    """What a trial keeps between its forward and its backward.

    Hidden units before and after GELU, what later readers make of them, and dropout's masks.
    """
    h, g = lane.products.channels.flatten(0, 1), lane.products.tokens.flatten(0, 1)
    copies = 3 if lane.module.options.dropout else 2
    # Of each unit along the channels, in each sample, by each along the tokens, twice, and by the
    # pooled vectors.
    read = len(h) * h.shape[1] * (2 * len(g) + lane.module.pool.vectors)
    return copies * (h.nbytes + g.nbytes) + read * h.element_size()


def _masks(lane: _Lane, position: Position) -> Kept:
    """Dropout's masks, from the numbers that the trial alone would draw."""
    form = lane.module.form()
    if not form.dropout:
        return None, None
    seed_generators(lane.trial.seed(position), lane.trial.compute.device)
    h, g = lane.products.channels.flatten(0, 1), lane.products.tokens.flatten(0, 1)
    return kept_units(form, h, g)


def _refined(lane: _Lane) -> Float[Tensor, "... b d"]:
    # Here, not around all lanes: it is a setting of a thread.
    with torch.inference_mode():
        return lane.stream().refine(lane.base.clone())


def _refined_by(job: tuple[_Lane, Kept]) -> tuple[Stream, Float[Tensor, "... b d"]]:
    lane, kept = job
    with torch.no_grad():
        stream = lane.stream(kept)
        return stream, stream.refine(lane.base.clone())


def _own_gradients(job: tuple[Stream, Float[Tensor, "... b d"]]) -> tuple[Weights, Along]:
    stream, rows = job
    assert rows.grad is not None
    with torch.no_grad():
        return own_gradients(stream, rows.grad)


def _loss(
    lane: _Lane, rows: Float[Tensor, "... b d"], labels: Int64[Tensor, "b"]
) -> Float[Tensor, ""]:
    with lane.trial.compute.autocast():
        logits = lane.module.of_pooled(rows)
    return lane.trial.objective.loss(logits.float(), labels)


def _few(lanes: Sequence[_Lane], count: int) -> Iterator[Sequence[_Lane]]:
    """Some at a time, in their order."""
    for first in range(0, len(lanes), count):
        yield lanes[first : first + count]


def _taken(values: Tensor, places: Sequence[int]) -> Tensor:
    """Some of the first axis: a view where the places are evenly spaced."""
    step = places[1] - places[0] if len(places) > 1 else 1
    if list(places) == list(range(places[0], places[-1] + 1, step)):
        return values[places[0] : places[-1] + 1 : step]
    return values[list(places)]
