"""LoSA: a side network of low-rank mixers that refines a frozen backbone's features tap by tap."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from losa.adapt.folding import Residual
from losa.adapt.fused import Form, Weights, pooled
from losa.adapt.head import Head, Pool, PoolName
from losa.adapt.mixer import Mixer, Order
from losa.adapt.standardise import Standardise, checked_planes
from losa.errors import UsageError
from losa.features import FeatureSpec
from losa.precision import EncodedPlanes


@dataclass(frozen=True, slots=True)
class SideOptions:
    """The switches of a side network, and the one owner of their defaults.

    ``token_rank`` of ``None`` means the same as ``rank``; ``width`` is that of adaptors without
    mixers, of ``None`` their own. What the other switches mean stands in docs/paper.md, row by row.

    Raises:
        UsageError: a rank is below 1, a dropout is outside 0..1, or a name is unknown.
    """

    rank: int = 8
    token_rank: int | None = None
    order: Order = "channel-token"
    residual: Residual = "refine"
    mixer_norm: bool = False
    pool: PoolName = "auto"
    dropout: float = 0.0
    width: int | None = None

    def __post_init__(self) -> None:
        widths = {"--rank": self.rank, "--token-rank": self.token_rank, "--width": self.width}
        for name, rank in widths.items():
            if rank is not None and rank < 1:
                raise UsageError(name, f"{rank} is not a width", "give 1 or more")
        if not 0.0 <= self.dropout < 1.0:
            raise UsageError("--dropout", f"{self.dropout} is not a share", "give 0 to below 1")
        for name, value, choices in (
            ("--order", self.order, get_args(Order)),
            ("--residual", self.residual, get_args(Residual)),
            ("--pool", self.pool, get_args(PoolName)),
        ):
            if value not in choices:
                raise UsageError(name, f"{value!r} is unknown", f"use one of {choices}")

    @property
    def ranks(self) -> tuple[int, int]:
        """Widths of the channel and of the token bottleneck."""
        return self.rank, self.rank if self.token_rank is None else self.token_rank


class Adaptor(nn.Module):
    """What every adaptor is: a module from a spec's planes to logits, with its standardisation.

    ``forward`` takes one plane a tap in depth order, as a list of live planes or as a cached
    ``[k b l d]`` tensor: both give the same logits.
    """

    spec: FeatureSpec
    standardise: Standardise


class LoSA(Adaptor):
    """Low-rank side adaptation: mixers beside the backbone, one a tap, and a linear head.

    ``y_i = g_i(b_i, y_{i-1})`` over the standardised planes ``b_i`` in ascending depth; the
    ``residual`` switch says how. With ``refine`` a new network is a linear probe of the last tap.

    Source: LoSA (arXiv 2402.02887); what is theirs and what is ours: docs/paper.md.

    Args:
        spec: the features it will see.
        rank: width of the bottlenecks; ``None`` leaves it to ``options``.
        num_classes: number of logits.
        options: all other switches.

    Raises:
        UsageError: the options do not fit the spec's grid, or the grid is a video's.

    Example:
        >>> from losa.features import TokenGrid
        >>> spec = FeatureSpec("vit_s", (3, 7, 11), TokenGrid(4, 4, prefix=1), 16)
        >>> LoSA(spec, rank=8, num_classes=10)(torch.zeros(3, 2, 17, 16)).shape
        torch.Size([2, 10])
    """

    pooling: Float[Tensor, "... l"]

    def __init__(
        self,
        spec: FeatureSpec,
        rank: int | None = None,
        num_classes: int = 10,
        *,
        options: SideOptions | None = None,
    ) -> None:
        super().__init__()
        chosen = options or SideOptions()
        self.options = chosen if rank is None else replace(chosen, rank=rank)
        self.spec = spec
        taps, tokens, channels = spec.shape
        self.pool = Pool(spec.grid, self.options.pool)
        self.standardise = Standardise(spec)
        self.mixers = nn.ModuleList(
            Mixer(
                tokens,
                channels,
                self.options.ranks,
                order=self.options.order,
                norm=self.options.mixer_norm,
                dropout=self.options.dropout,
            )
            for _ in range(taps)
        )
        self.head = Head(self.pool.vectors * channels, num_classes)
        # Pooling is linear in the tokens: what it makes of the identity is its matrix.
        matrix = self.pool(torch.eye(tokens)[None]).view(self.pool.vectors, tokens)
        self.register_buffer("pooling", matrix, persistent=False)

    def forward(self, planes: Iterable[Float[Tensor, "b l d"]]) -> Float[Tensor, "b y"]:
        """Logits of one batch.

        Unless mixers normalise, planes are read where they lie, in whichever dtype, and none is
        copied as a whole; see :mod:`losa.adapt.fused`. Otherwise :meth:`plain` does it.

        Raises:
            MismatchError: the planes are not the spec's.
        """
        encoded = planes if isinstance(planes, EncodedPlanes) else None
        if self.options.mixer_norm:
            return self.plain(planes)
        found = checked_planes(planes if encoded is None else encoded.values, self.spec)
        if torch.is_grad_enabled() and any(plane.requires_grad for plane in found):
            return self.plain(found)
        compute = _product_dtype(self.standardise.mean)
        folded = self.standardise.folded(found, encoded, compute)
        is_channel_first = self.options.order == "channel-token"
        dropout = self.options.dropout if self.training else 0.0
        form = Form(is_channel_first, self.options.residual, self.pooling, dropout)
        rows = pooled(folded, form, self._weights())
        logits: Float[Tensor, "b y"] = self.head(rows.transpose(0, 1).flatten(1))
        return logits

    def plain(self, planes: Iterable[Float[Tensor, "b l d"]]) -> Float[Tensor, "b y"]:
        """Logits of one batch, mixer by mixer: what :meth:`forward` is held against.

        Raises:
            MismatchError: the planes are not the spec's.
        """
        found = enumerate(checked_planes(planes, self.spec))
        # Lazily, so that no more than two standardised planes need to be held at once.
        standard = (self.standardise(plane, position) for position, plane in found)
        refined = RESIDUALS[self.options.residual](zip(standard, self.mixers, strict=True))
        logits: Float[Tensor, "b y"] = self.head(self.pool(refined))
        return logits

    def _weights(self) -> Weights:
        """The weights of all mixers, stacked."""
        mixers = [mixer for mixer in self.mixers if isinstance(mixer, Mixer)]
        return Weights(
            torch.stack([mixer.channel.down for mixer in mixers]),
            torch.stack([mixer.channel.up.t() for mixer in mixers]),
            torch.stack([mixer.token.down for mixer in mixers]),
            torch.stack([mixer.token.up.t() for mixer in mixers]),
        )


def _product_dtype(like: Tensor) -> torch.dtype:
    """What products with planes are computed in: autocast's dtype, or that of the weights."""
    kind = like.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else like.dtype


Steps = Iterator[tuple[Tensor, nn.Module]]


def _refine(steps: Steps) -> Float[Tensor, "b l d"]:
    """``v_i = Mixer_i(b_i + y_{i-1})``, ``y_i = v_i - b_i``, ``y_0 = 0``; the head sees ``v_k``."""
    previous, mixer = next(steps)
    refined: Tensor = mixer(previous)
    for plane, mixer in steps:
        # The difference first: where nothing is refined yet it is exactly zero.
        refined, previous = mixer(plane + (refined - previous)), plane
    return refined


def _sum(steps: Steps) -> Float[Tensor, "b l d"]:
    """``y_i = Mixer_i(b_i + y_{i-1})``, ``y_0 = 0``; the head sees ``y_k``."""
    plane, mixer = next(steps)
    refined: Tensor = mixer(plane)
    for plane, mixer in steps:
        refined = mixer(plane + refined)
    return refined


def _stream(steps: Steps) -> Float[Tensor, "b l d"]:
    """``z_i = b_i + y_{i-1}``, ``y_i = y_{i-1} + (Mixer_i(z_i) - z_i)``, ``y_0 = b_1``."""
    plane, mixer = next(steps)
    mixed = plane + plane
    refined: Tensor = plane + (mixer(mixed) - mixed)
    for plane, mixer in steps:
        mixed = plane + refined
        refined = refined + (mixer(mixed) - mixed)
    return refined


RESIDUALS: Final[Mapping[Residual, Callable[[Steps], Tensor]]] = {
    "refine": _refine,
    "sum": _sum,
    "stream": _stream,
}
