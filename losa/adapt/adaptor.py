"""LoSA: a side network of low-rank mixers that refines a frozen backbone's features tap by tap."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from losa.adapt.clipwindow import window_of
from losa.adapt.folding import FoldedPlanes, Residual
from losa.adapt.fused import Form, Weights, pooled
from losa.adapt.head import Head, Pool, PoolName
from losa.adapt.mixer import (
    ChannelMixing,
    FactorisedMixer,
    Mixer,
    SpaceMixing,
    TimeMixing,
)
from losa.adapt.options import SideOptions
from losa.adapt.standardise import Standardise, checked_planes
from losa.adapt.streamed import Pair, StreamForm, streamed
from losa.errors import UsageError
from losa.features import FeatureSpec
from losa.precision import EncodedPlanes


class Adaptor(nn.Module):
    """What every adaptor is: a module from a spec's planes to logits, with its standardisation.

    ``forward`` takes one plane a tap in depth order, as a list of live planes or as a cached
    ``[k b l d]`` tensor: both give the same logits. Where the options ask for some time steps of a
    clip alone, planes of whole clips are given, and ``spec`` is what is left of them.

    Args:
        spec: the features it will be given.
        options: the switches.

    Raises:
        UsageError: the clips have fewer time steps.
    """

    def __init__(self, spec: FeatureSpec, options: SideOptions) -> None:
        super().__init__()
        self.window = window_of(spec.grid, options)
        if self.window is not None:
            spec = replace(spec, grid=self.window.grid)
            self.register_forward_pre_hook(self.window)
        self.spec = spec
        self.standardise = Standardise(spec)


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
        UsageError: the options do not fit the spec's grid.

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
        chosen = options or SideOptions()
        chosen = chosen if rank is None else replace(chosen, rank=rank)
        super().__init__(spec, chosen)
        self.options = chosen
        self.token_mixing = self.options.mixing_on(self.spec.grid)
        taps, tokens, channels = self.spec.shape
        self.pool = Pool(self.spec.grid, own_pool("losa", self.options.pool))
        made = 1 if self.options.share_mixers else taps
        self.mixers = nn.ModuleList(self._new_mixer(tokens, channels) for _ in range(made))
        self.head = Head(self.pool.vectors * channels, num_classes)
        self.register_buffer("pooling", self.pool.matrix(tokens), persistent=False)

    def forward(self, planes: Iterable[Float[Tensor, "b l d"]]) -> Float[Tensor, "b y"]:
        """Logits of one batch.

        Unless mixers normalise, planes are read where they lie, in whichever dtype, and none is
        copied as a whole: see :mod:`losa.adapt.fused`, and :mod:`losa.adapt.streamed` where space
        and time are mixed apart. Otherwise :meth:`plain` does it, as where a joint network starts
        at the first plane, or one of the latter kind has dropout or autocast.

        Raises:
            MismatchError: the planes are not the spec's.
        """
        encoded = planes if isinstance(planes, EncodedPlanes) else None
        if self._is_plain:
            return self.plain(planes)
        found = checked_planes(planes if encoded is None else encoded.values, self.spec)
        if torch.is_grad_enabled() and any(plane.requires_grad for plane in found):
            return self.plain(found)
        compute = _product_dtype(self.standardise.mean)
        folded = self.standardise.folded(found, encoded, compute)
        if self.is_factorised:
            if not len(found[0]):
                return self.plain(planes)
            rows = streamed(folded, *self._stream())
            return self.of_pooled(rows.transpose(0, 1))
        return self.of_pooled(pooled(folded, self.form(), self.weights()))

    @property
    def can_be_folded(self) -> bool:
        """Whether products with planes that are taken elsewhere make this network."""
        is_other = self.options.share_mixers or self.options.starts_at_first
        return not (is_other or self.is_factorised) and self.window is None

    def folded(self, planes: EncodedPlanes) -> FoldedPlanes:
        """Planes of a store, standardised, for products that are taken elsewhere.

        Raises:
            MismatchError: the planes are not the spec's.
            UsageError: products taken elsewhere do not make this network.
        """
        if not self.can_be_folded:
            # Whoever adds updates up elsewhere knows none of these: it would be another network.
            flags = "--share-mixers, --start first, --token-mixing, --clip-frames"
            raise UsageError(flags, "is not trained among other trials", "train it by losa adapt")
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
        refined = refine(zip(standard, self._by_tap(), strict=True))
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

    @property
    def is_factorised(self) -> bool:
        """Whether space and time are mixed apart, or one of them alone."""
        return self.token_mixing != "joint"

    @property
    def _is_plain(self) -> bool:
        """Whether no faster form computes this network here."""
        if not self.is_factorised:
            return self.options.mixer_norm or self.options.starts_at_first
        has_dropout = self.training and self.options.dropout > 0
        is_cast = torch.is_autocast_enabled(self.standardise.mean.device.type)
        return self.options.mixer_norm or has_dropout or is_cast

    def _stream(self) -> tuple[StreamForm, list[Pair]]:
        """The network as one stream through all branches."""
        mixers = [mixer for mixer in self._by_tap() if isinstance(mixer, FactorisedMixer)]
        kind = self.options.residual, self.options.starts_at_first
        form = StreamForm(self.spec.grid, mixers[0].axes, *kind, self.pooling)
        return form, [pair for mixer in mixers for pair in mixer.weights]

    def _new_mixer(self, tokens: int, channels: int) -> Mixer | FactorisedMixer:
        chosen = self.options
        if self.is_factorised:
            return self._factorised(channels)
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

    def _factorised(self, channels: int) -> FactorisedMixer:
        chosen, grid, kind = self.options, self.spec.grid, self.token_mixing
        norm, dropout = chosen.mixer_norm, chosen.dropout
        channel = ChannelMixing(channels, chosen.rank, norm=norm, dropout=dropout)
        space = time = None
        if kind != "time":
            space = SpaceMixing(grid, chosen.ranks[1], norm=norm, dropout=dropout)
        if kind != "space":
            time = TimeMixing(grid, chosen.along_time, norm=norm, dropout=dropout)
        orders = chosen.order, chosen.token_order
        mixer = FactorisedMixer(channel, space, time, order=orders[0], token_order=orders[1])
        mixer.scale_start(chosen.init_scale)
        return mixer

    def _by_tap(self) -> list[nn.Module]:
        return [*self.mixers] * (len(self.spec.taps) if self.options.share_mixers else 1)

    def _mixers_by_tap(self) -> list[Mixer]:
        return [mixer for mixer in self._by_tap() if isinstance(mixer, Mixer)]

    def set_gradients(self, found: Weights) -> None:
        """Let the mixers' weights have these gradients."""
        mixers = [mixer for mixer in self.mixers if isinstance(mixer, Mixer)]
        for tap, mixer in enumerate(mixers):
            mixer.channel.down.grad = found.channel_down[tap]
            mixer.channel.up.grad = found.channel_up[tap].t().contiguous()
            mixer.token.down.grad = found.token_down[tap]
            mixer.token.up.grad = found.token_up[tap].t().contiguous()


def own_pool(adaptor: str, pool: PoolName) -> PoolName:
    """What LoSA pools: the mean patch token unless another is asked for. Others pool as asked.

    Source: docs/decisions/0017-scale-of-a-tap.md.
    """
    return "mean" if adaptor == "losa" and pool == "auto" else pool


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
