"""Which trials of a cohort would, on a batch of some size, be to the bit what they are alone.

Which kernel a BLAS takes for a product depends on its shape and on the number of threads, by rules
of its own: products of 5 to 11 rows, say, may be rounded otherwise by two threads than by one. So
this is tried and not reasoned about: random weights of each trial's shape go through a batch as a
cohort does it and as a trial alone does it. Values do not choose kernels; what is equal for these
is equal for all.

Source: docs/decisions/0015-cohorts.md, section "Equality".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import NamedTuple

import torch
from torch import Tensor

from losa.adapt.adaptor import LoSA
from losa.adapt.crew import Crew
from losa.adapt.folding import FoldedPlanes
from losa.adapt.fused import Form, Weights, pooled
from losa.adapt.lanes import gradients_of, lanes_of, refined
from losa.precision import EncodedPlanes


class _Kind(NamedTuple):
    """What of a trial the kernels may depend on."""

    order: str
    ranks: tuple[int, int]


class _Case(NamedTuple):
    """What of a group and its batch the kernels may depend on."""

    planes: tuple[torch.Size, str, tuple[int, ...]]
    residual: str
    kinds: tuple[_Kind, ...]
    is_learning: bool


class Likeness:
    """Tries it once for each case.

    Args:
        crew: who computes what is a trial's own.
    """

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._known: dict[_Case, list[bool]] = {}

    def of(
        self,
        modules: Sequence[LoSA],
        planes: EncodedPlanes,
        folded: Callable[[], FoldedPlanes],
        *,
        is_learning: bool,
    ) -> list[bool]:
        """Of each trial of a group, whether its numbers would be those of the trial alone.

        Args:
            modules: of all trials, with one residual and one pooling; not their weights matter.
            planes: of a batch.
            folded: the same, standardised; asked for where this must be tried.
            is_learning: whether gradients are wanted too.
        """
        kinds = tuple(_Kind(module.options.order, module.options.ranks) for module in modules)
        first = modules[0]
        about = planes.raw.shape, planes.dtype, first.spec.taps
        case = _Case(about, first.options.residual, kinds, is_learning)
        if case not in self._known:
            # Dropout multiplies number by number, which is the same however it is done.
            forms = [replace(module.form(), dropout=0.0) for module in modules]
            # With none of the generators that trials draw from.
            generator = torch.Generator().manual_seed(0)
            with torch.inference_mode(mode=False), torch.no_grad():
                random = [_random(module.weights(), generator) for module in modules]
                found = self._tried(folded(), kinds, forms, random, is_learning=is_learning)
            self._known[case] = found
        return self._known[case]

    def _tried(
        self,
        planes: FoldedPlanes,
        kinds: Sequence[_Kind],
        forms: Sequence[Form],
        weights: Sequence[Weights],
        *,
        is_learning: bool,
    ) -> list[bool]:
        way = self._learned if is_learning else self._judged
        together = way(planes, forms, weights)
        alike: dict[_Kind, bool] = {}
        for kind, form, mine, found in zip(kinds, forms, weights, together, strict=True):
            if kind not in alike:
                expected = _alone(planes, form, mine, is_learning=is_learning)
                pairs = zip(found, expected, strict=True)
                alike[kind] = all(torch.equal(one, other) for one, other in pairs)
        return [alike[kind] for kind in kinds]

    def _judged(
        self, planes: FoldedPlanes, forms: Sequence[Form], weights: Sequence[Weights]
    ) -> list[list[Tensor]]:
        return [[rows] for rows in self._crew.each(refined, lanes_of(planes, forms, weights))]

    def _learned(
        self, planes: FoldedPlanes, forms: Sequence[Form], weights: Sequence[Weights]
    ) -> list[list[Tensor]]:
        rows: list[Tensor] = []

        def turn(_: int, found: Tensor) -> None:
            found.grad = found.clone()
            rows.append(found)

        lanes = lanes_of(planes, forms, weights)
        gradients = gradients_of(lanes, planes, self._crew, lambda _: (None, None), turn)
        return [[row, *_parts(found)] for row, found in zip(rows, gradients, strict=True)]


def _alone(
    planes: FoldedPlanes, form: Form, weights: Weights, *, is_learning: bool
) -> list[Tensor]:
    """Pooled tokens and, for these as their own gradient, those of the weights."""
    if not is_learning:
        return [pooled(planes, form, weights)]
    leaves = [part.requires_grad_() for part in _parts(weights)]
    with torch.enable_grad():
        rows = pooled(planes, form, weights)
    return [rows.detach(), *torch.autograd.grad(rows, leaves, rows.detach())]


def _random(weights: Weights, generator: torch.Generator) -> Weights:
    parts = _parts(weights)
    return Weights(*(0.1 * torch.randn(part.shape, generator=generator) for part in parts))


def _parts(weights: Weights) -> list[Tensor]:
    return [getattr(weights, field.name) for field in fields(weights)]
