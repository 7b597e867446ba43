"""A step of many trials on one batch, and their logits: what they share is computed once.

LoSA trials that see the same bases are a group: of each piece of a plane, while it is in cache, all
their down-projections are one product along the channels and one along the tokens, whatever their
ranks (:func:`losa.adapt.folding.down_all`). What follows is low-rank, a trial's own, and small:
it is done trial by trial, on a CPU by as many threads as there are cores, for many trials before
anything is done with all threads.
A trial's numbers go through the same kernels as alone, so that it takes the same steps to the bit.

All other trials share the batch: other adaptors, mixup, mixers that normalise, that are one for all
taps or that start at the first plane, and on a CPU ranks that
:func:`losa.adapt.folding.can_lie_beside` refuses, and batches of such a size that
:class:`losa.adapt.likeness.Likeness` finds a trial's numbers to be others than alone.

Source: docs/decisions/0015-cohorts.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from losa.adapt.adaptor import Adaptor, LoSA
from losa.adapt.crew import Crew
from losa.adapt.folding import FoldedPlanes, can_lie_beside
from losa.adapt.fused import Kept
from losa.adapt.lanes import gradients_of, lanes_of, refined
from losa.adapt.likeness import Likeness
from losa.adapt.trial import Position, Trial, seed_generators
from losa.features import FeatureSpec
from losa.precision import EncodedPlanes

_Alone = list[tuple[Trial, nn.Module]]
_Group = list[tuple[Trial, LoSA]]


class _Bases(NamedTuple):
    """What trials must have in common for their products to be taken together."""

    taps: tuple[int, ...]
    residual: str
    pool: str
    standardise: str


class CohortStep:
    """Steps and logits of trials whose batches hold the planes of ``spec``.

    Args:
        spec: what is read: the taps of all trials.
        crew: who computes what is a trial's own.
    """

    def __init__(self, spec: FeatureSpec, crew: Crew) -> None:
        self._spec = spec
        self._crew = crew
        self._likeness = Likeness(crew)

    def learn(
        self,
        trials: Sequence[Trial],
        planes: EncodedPlanes,
        labels: Int64[Tensor, "b"],
        position: Position,
    ) -> None:
        """Let every trial take the step at ``position``, as :meth:`Trial.step` does."""
        modules = [trial.module for trial in trials]
        for module in modules:
            module.train()
        alone, groups = self._placed(trials, modules, planes, is_learning=True)
        for trial, module in alone:
            trial.step(self._planes_of(module, planes), labels, position)
        for group in groups:
            self._learn_together(group, planes, labels, position)

    def logits(self, trials: Sequence[Trial], planes: EncodedPlanes) -> list[Float[Tensor, "b y"]]:
        """Logits of one batch by what val judges of each trial, which must be in eval mode."""
        judged = [trial.judged for trial in trials]
        found: dict[int, Tensor] = {}
        with torch.inference_mode():
            alone, groups = self._placed(trials, judged, planes, is_learning=False)
            for trial, module in alone:
                with trial.compute.autocast():
                    found[id(trial)] = module(self._planes_of(module, planes)).float()
            for group in groups:
                modules = [module for _, module in group]
                lanes = lanes_of(
                    self._folded(group, planes),
                    [module.form() for module in modules],
                    [module.weights() for module in modules],
                )
                results = self._crew.each(refined, lanes)
                for (trial, module), rows in zip(group, results, strict=True):
                    with trial.compute.autocast():
                        found[id(trial)] = module.of_pooled(rows).float()
        return [found[id(trial)] for trial in trials]

    def _placed(
        self,
        trials: Sequence[Trial],
        modules: Sequence[nn.Module],
        planes: EncodedPlanes,
        *,
        is_learning: bool,
    ) -> tuple[_Alone, list[_Group]]:
        """Trials that go alone on this batch, and those whose products are taken together."""
        alone, groups = _groups(trials, modules, is_learning=is_learning)
        placed = []
        for whole in groups:
            group, others = whole, self._unlike(whole, planes, is_learning=is_learning)
            while others:
                alone += others
                group = [each for each in group if each not in others]
                others = self._unlike(group, planes, is_learning=is_learning)
            if group:
                placed.append(group)
        return alone, placed

    def _unlike(self, group: _Group, planes: EncodedPlanes, *, is_learning: bool) -> _Group:
        """Those of a group whose numbers would be others than alone."""
        if not group or group[0][0].compute.device.type != "cpu":
            return []
        alike = self._likeness.of(
            [module for _, module in group],
            planes,
            lambda: self._folded(group, planes),
            is_learning=is_learning,
        )
        return [each for each, is_alike in zip(group, alike, strict=True) if not is_alike]

    def _learn_together(
        self,
        group: _Group,
        planes: EncodedPlanes,
        labels: Int64[Tensor, "b"],
        position: Position,
    ) -> None:
        folded = self._folded(group, planes)
        with torch.no_grad():
            weights = [module.weights() for _, module in group]
        lanes = lanes_of(folded, [module.form() for _, module in group], weights)
        losses: list[Tensor] = []

        def masks(number: int) -> Kept:
            # From the numbers that the trial alone would draw.
            trial, _ = group[number]
            if lanes[number].form.dropout:
                seed_generators(trial.seed(position), trial.compute.device)
            return lanes[number].masks()

        def turn(number: int, rows: Float[Tensor, "... b d"]) -> None:
            # Heads, losses and optimisers with all threads, as alone: on the number of threads
            # the rounding of some of their sums depends.
            trial, module = group[number]
            with trial.compute.autocast():
                logits = module.of_pooled(rows.requires_grad_())
            losses.append(trial.backward(trial.objective.loss(logits.float(), labels)))

        found = gradients_of(lanes, folded, self._crew, masks, turn)
        for (trial, module), loss, of_weights in zip(group, losses, found, strict=True):
            module.set_gradients(of_weights)
            trial.finish(loss, position)

    def _folded(self, group: _Group, planes: EncodedPlanes) -> FoldedPlanes:
        trial, module = group[0]
        with trial.compute.autocast():
            return module.folded(self._planes_of(module, planes))

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
) -> tuple[_Alone, list[_Group]]:
    """Trials that go alone, and those whose products are taken together."""
    alone: _Alone = []
    groups: dict[_Bases, _Group] = {}
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


def _taken(values: Tensor, places: Sequence[int]) -> Tensor:
    """Some of the first axis: a view where the places are evenly spaced."""
    step = places[1] - places[0] if len(places) > 1 else 1
    if list(places) == list(range(places[0], places[-1] + 1, step)):
        return values[places[0] : places[-1] + 1 : step]
    return values[list(places)]
