"""Linear probes behind the side network's interface: what an adaptor has to beat."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from losa.adapt.adaptor import Adaptor
from losa.adapt.head import Head, Pool
from losa.adapt.options import SideOptions
from losa.adapt.standardise import checked_planes
from losa.features import FeatureSpec


class LinearAll(Adaptor):
    """One head on the pooled tokens of all taps, side by side.

    Raises:
        UsageError: the options do not fit the spec's grid.
    """

    seen: ClassVar[slice] = slice(None)
    """Which of the taps, by position, the head sees."""

    def __init__(
        self, spec: FeatureSpec, num_classes: int = 10, *, options: SideOptions | None = None
    ) -> None:
        chosen = options or SideOptions()
        super().__init__(spec, chosen)
        self.pool = Pool(self.spec.grid, chosen.pool)
        taps = len(spec.taps[self.seen])
        self.head = Head(taps * self.pool.vectors * spec.channels, num_classes)

    def forward(self, planes: Iterable[Float[Tensor, "b l d"]]) -> Float[Tensor, "b y"]:
        """Logits of one batch.

        Raises:
            MismatchError: the planes are not the spec's.
        """
        found = list(enumerate(checked_planes(planes, self.spec)))[self.seen]
        pooled = [self.pool(self.standardise(plane, position)) for position, plane in found]
        logits: Float[Tensor, "b y"] = self.head(torch.cat(pooled, dim=1))
        return logits


class Linear(LinearAll):
    """The side network's head on the last tap alone."""

    seen = slice(-1, None)
