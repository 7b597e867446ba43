"""Linear probes behind the side network's interface: what an adaptor has to beat."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from losa.adapt.adaptor import Adaptor, SideOptions
from losa.adapt.head import Head, Pool
from losa.adapt.standardise import Standardise, checked_planes
from losa.features import FeatureSpec


class Linear(Adaptor):
    """The side network's head on the last tap alone.

    Raises:
        UsageError: the options do not fit the spec's grid, or the grid is a video's.
    """

    def __init__(
        self, spec: FeatureSpec, num_classes: int = 10, *, options: SideOptions | None = None
    ) -> None:
        super().__init__()
        self.spec = spec
        self.pool = Pool(spec.grid, (options or SideOptions()).pool)
        self.standardise = Standardise(spec)
        self.head = Head(self.pool.vectors * spec.channels, num_classes)

    def forward(self, planes: Iterable[Float[Tensor, "b l d"]]) -> Float[Tensor, "b y"]:
        """Logits of one batch.

        Raises:
            MismatchError: the planes are not the spec's.
        """
        last = checked_planes(planes, self.spec)[-1]
        logits: Float[Tensor, "b y"] = self.head(self.pool(self.standardise(last, -1)))
        return logits


class LinearAll(Adaptor):
    """One head on the pooled tokens of all taps, side by side.

    Raises:
        UsageError: the options do not fit the spec's grid, or the grid is a video's.
    """

    def __init__(
        self, spec: FeatureSpec, num_classes: int = 10, *, options: SideOptions | None = None
    ) -> None:
        super().__init__()
        self.spec = spec
        self.pool = Pool(spec.grid, (options or SideOptions()).pool)
        self.standardise = Standardise(spec)
        self.head = Head(len(spec.taps) * self.pool.vectors * spec.channels, num_classes)

    def forward(self, planes: Iterable[Float[Tensor, "b l d"]]) -> Float[Tensor, "b y"]:
        """Logits of one batch.

        Raises:
            MismatchError: the planes are not the spec's.
        """
        pooled = [
            self.pool(self.standardise(plane, position))
            for position, plane in enumerate(checked_planes(planes, self.spec))
        ]
        logits: Float[Tensor, "b y"] = self.head(torch.cat(pooled, dim=1))
        return logits
