"""How many trials fit into memory at once: what each takes, and cohorts that do fit.

Batches are read once whatever the number of trials, and what a few trials compute besides (see
:data:`losa.adapt.lanes.ROOM`) is let go before the next: what grows with the trials is their
weights and the products that are taken together, for these wait for each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch

from losa.adapt.adaptor import LoSA
from losa.adapt.registry import build_adaptor, trainable_parameters
from losa.adapt.train import options_of
from losa.config import AdaptConfig
from losa.features import FeatureSpec

COPIES: Final = 5
"""Of a trial's weights: themselves, their gradients, two moments, and the best so far."""

FLOAT32: Final = 4


@dataclass(frozen=True, slots=True)
class TrialBytes:
    """What a trial takes while it is in a cohort."""

    weights: int
    products: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.products


def trial_bytes(config: AdaptConfig, spec: FeatureSpec, classes: int) -> TrialBytes:
    """Bytes of a trial of a cohort: ``spec`` is what its adaptor sees.

    Weights: :data:`COPIES` of them, and one more that an average takes. Products, of ``losa``
    where they are taken with others': ``2 k b (r l + r d)`` numbers, the hidden units along both
    axes and their gradients.

    Raises:
        UsageError: there is no such adaptor, or it does not fit the spec.
    """
    options = options_of(config)
    with torch.device("meta"):
        adaptor = build_adaptor(config.adaptor, spec, classes, options)
    copies = COPIES + (config.ema is not None)
    weights = FLOAT32 * copies * trainable_parameters(adaptor)
    if not (isinstance(adaptor, LoSA) and adaptor.can_be_folded):
        return TrialBytes(weights, 0)
    taps, tokens, channels = spec.shape
    rank, token_rank = options.ranks
    units = taps * config.batch_size * (rank * tokens + token_rank * channels)
    return TrialBytes(weights, 2 * FLOAT32 * units)


def packed(sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Numbers of trials of these sizes in cohorts that fit into ``budget``, in their order.

    One trial is always taken: alone it would need no less.

    Example:
        >>> packed([4, 4, 4, 20, 4], 10)
        [[0, 1], [2], [3], [4]]
    """
    cohorts: list[list[int]] = []
    room = 0
    for number, size in enumerate(sizes):
        if not cohorts or size > room:
            cohorts.append([])
            room = budget
        cohorts[-1].append(number)
        room -= size
    return cohorts
