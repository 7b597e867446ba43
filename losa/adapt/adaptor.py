"""LoSA: a side network of low-rank mixers that refines a frozen backbone's features tap by tap."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from losa.adapt.folding import FoldedPlanes, Residual
from losa.adapt.fused import Form, Weights, pooled
from losa.adapt.head import Head, Pool, PoolName
from losa.adapt.mixer import Mixer, Order
from losa.adapt.standardise import Standardise, checked_planes
from losa.errors import UsageError
from losa.features import FeatureSpec
from losa.precision import EncodedPlanes

Start = Literal["auto", "first"]


@dataclass(frozen=True, slots=True)
class SideOptions:
    """The switches of a side network, and the one owner of their defaults.

    ``token_rank`` of ``None`` means the same as ``rank``; ``width`` is that of adaptors without
    mixers, of ``None`` their own. What the other switches mean stands in docs/paper.md, row by row.

    Raises:
        UsageError: a rank is below 1, a dropout is outside 0..1, a scale is not above 0, or a name
            is unknown.
    """

    rank: int = 8
    token_rank: int | None = None
    order: Order = "channel-token"
    residual: Residual = "refine"
    start: Start = "auto"
    share_mixers: bool = False
    init_scale: float = 1.0
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
        if not 0.0 < self.init_scale < float("inf"):
            raise UsageError("--init-scale", f"{self.init_scale} is no scale", "give more than 0")
        for name, value, choices in (
            ("--order", self.order, get_args(Order)),
            ("--residual", self.residual, get_args(Residual)),
            ("--start", self.start, get_args(Start)),
            ("--pool", self.pool, get_args(PoolName)),
        ):
            if value not in choices:
                raise UsageError(name, f"{value!r} is unknown", f"use one of {choices}")

    @property
    def ranks(self) -> tuple[int, int]:
        """Widths of the channel and of the token bottleneck."""
        return self.rank, self.rank if self.token_rank is None else self.token_rank

    @property
    def starts_at_first(self) -> bool:
        """Whether ``y_0`` is the first plane where the residual itself starts at zero."""
        return self.start == "first" and self.residual != "stream"


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
        made = 1 if self.options.share_mixers else taps
        self.mixers = nn.ModuleList(self._new_mixer(tokens, channels) for _ in range(made))
        self.head = Head(self.pool.vectors * channels, num_classes)
        # Pooling is linear in the tokens: what it makes of the identity is its matrix.
        matrix = self.pool(torch.eye(tokens)[None]).view(self.pool.vectors, tokens)
        self.register_buffer("pooling", matrix, persistent=False)

    def forward(self, planes: Iterable[Float[Tensor, "b l d"]]) -> Float[Tensor, "b y"]:
        """Logits of one batch.

        Unless mixers normalise, or refining starts at the first plane, planes are read where they
        lie, in whichever dtype, and none is copied as a whole; see :mod:`losa.adapt.fused`.
        Otherwise :meth:`plain` does it.

        Raises:
            MismatchError: the planes are not the spec's.
        """
        encoded = planes if isinstance(planes, EncodedPlanes) else None
        if self.options.mixer_norm or self.options.starts_at_first:
            return self.plain(planes)
        found = checked_planes(planes if encoded is None else encoded.values, self.spec)
        if torch.is_grad_enabled() and any(plane.requires_grad for plane in found):
            return self.plain(found)
        compute = _product_dtype(self.standardise.mean)
        folded = self.standardise.folded(found, encoded, compute)
        return self.of_pooled(pooled(folded, self.form(), self.weights()))

    def folded(self, planes: EncodedPlanes) -> FoldedPlanes:
        """Planes of a store, standardised, for products that are taken elsewhere.

        Raises:
            MismatchError: the planes are not the spec's.
            UsageError: products taken elsewhere do not make this network.
        """
        if self.options.share_mixers or self.options.starts_at_first:
            # Whoever adds updates up elsewhere knows neither, and would train another network.
            what = "is not trained among other trials"
            raise UsageError("--share-mixers, --start first", what, "train it by losa adapt")
        found = checked_planes(planes.values, self.spec)
        return self.standardise.folded(found, planes, _product_dtype(self.standardise.mean))

    def form(self) -> Form:
        """What the fused network is but for its weights."""
        is_channel_first = self.options.order == "channel-token"
        dropout = self.options.dropout if self.training else 0.0
        return Form(is_channel_first, self.options.residual, self.pooling, dropout)

    def plain(self, planes: Iterable[Float[Tensor, "b l d"]]) -> Float[Tensor, "b y"]:
        """Logits of one batch, mixer by mixer: what :meth:`forward` is held against.

        Raises:
            MismatchError: the planes are not the spec's.
        """
        found = enumerate(checked_planes(planes, self.spec))
        # Lazily, so that no more than two standardised planes need to be held at once.
        standard = (self.standardise(plane, position) for position, plane in found)
        refine = RESIDUALS[self.options.residual, self.options.starts_at_first]
        refined = refine(zip(standard, self._mixers_by_tap(), strict=True))
        logits: Float[Tensor, "b y"] = self.head(self.pool(refined))
        return logits

    def of_pooled(self, rows: Float[Tensor, "... b d"]) -> Float[Tensor, "b y"]:
        """Logits of the pooled tokens of what the last mixer gives."""
        logits: Float[Tensor, "b y"] = self.head(rows.transpose(0, 1).flatten(1))
        return logits

    def weights(self) -> Weights:
        """The weights of all mixers, stacked."""
        mixers = self._mixers_by_tap()
        return Weights(
            torch.stack([mixer.channel.down for mixer in mixers]),
            torch.stack([mixer.channel.up.t() for mixer in mixers]),
            torch.stack([mixer.token.down for mixer in mixers]),
            torch.stack([mixer.token.up.t() for mixer in mixers]),
        )

    def _new_mixer(self, tokens: int, channels: int) -> Mixer:
        chosen = self.options
        mixer = Mixer(
            tokens,
            channels,
            chosen.ranks,
            order=chosen.order,
            norm=chosen.mixer_norm,
            dropout=chosen.dropout,
        )
        mixer.scale_start(chosen.init_scale)
        return mixer

    def _mixers_by_tap(self) -> list[Mixer]:
        found = [mixer for mixer in self.mixers if isinstance(mixer, Mixer)]
        return found * len(self.spec.taps) if self.options.share_mixers else found

    def set_gradients(self, found: Weights) -> None:
        """Let the mixers' weights have these gradients."""
        mixers = [mixer for mixer in self.mixers if isinstance(mixer, Mixer)]
        for tap, mixer in enumerate(mixers):
            mixer.channel.down.grad = found.channel_down[tap]
            mixer.channel.up.grad = found.channel_up[tap].t().contiguous()
            mixer.token.down.grad = found.token_down[tap]
            mixer.token.up.grad = found.token_up[tap].t().contiguous()


def _product_dtype(like: Tensor) -> torch.dtype:
    """What products with planes are computed in: autocast's dtype, or that of the weights."""
    kind = like.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else like.dtype


Steps = Iterator[tuple[Tensor, nn.Module]]


def _refine(steps: Steps, *, starts_at_first: bool = False) -> Float[Tensor, "b l d"]:
    """``v_i = Mixer_i(b_i + y_{i-1})``, ``y_i = v_i - b_i``, ``y_0 = 0``; the head sees ``v_k``.

    ``starts_at_first``: ``y_0 = b_1``.
    """
    previous, mixer = next(steps)
    refined: Tensor = mixer(previous + previous if starts_at_first else previous)
    for plane, mixer in steps:
        # The difference first: where nothing is refined yet it is exactly zero.
        refined, previous = mixer(plane + (refined - previous)), plane
    return refined


def _sum(steps: Steps, *, starts_at_first: bool = False) -> Float[Tensor, "b l d"]:
    """``y_i = Mixer_i(b_i + y_{i-1})``, ``y_0 = 0``; the head sees ``y_k``.

    ``starts_at_first``: ``y_0 = b_1``.
    """
    plane, mixer = next(steps)
    refined: Tensor = mixer(plane + plane if starts_at_first else plane)
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


RESIDUALS: Final[Mapping[tuple[Residual, bool], Callable[[Steps], Tensor]]] = {
    ("refine", False): _refine,
    ("refine", True): partial(_refine, starts_at_first=True),
    ("sum", False): _sum,
    ("sum", True): partial(_sum, starts_at_first=True),
    ("stream", False): _stream,
}
"""By residual and whether ``y_0`` is the first plane though the residual starts at zero."""
