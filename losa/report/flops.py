"""What an adaptor computes for one sample, from its card alone: no weights, no network.

A multiplication and its addition are two FLOPs. Matrix products and attention count, as in
``torch.utils.flop_counter``; norms, activations and pooling do not. They are those of the equation
as docs/paper.md has it, whichever way :mod:`losa.adapt.fused` gets to the same logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from losa.adapt.adaptor import own_pool
from losa.adapt.attention import MLP_RATIO, width_of
from losa.adapt.checkpoint import AdaptorCard
from losa.adapt.clipwindow import window_of
from losa.adapt.head import Pool
from losa.adapt.lst import REDUCTION
from losa.adapt.options import SideOptions
from losa.extract.known import Anatomy, Profile, known_models
from losa.features import TokenGrid


@dataclass(frozen=True, slots=True)
class Sizes:
    """Axes of an adaptor by their letters; ``e`` is what is pooled of one tap."""

    k: int
    l: int  # noqa: E741 -- the letter of tokens in the table of axes
    d: int
    y: int
    e: int
    options: SideOptions
    grid: TokenGrid

    @property
    def vectors(self) -> int:
        """Pooled tokens of one tap."""
        return self.e // self.d


def adaptor_flops(card: AdaptorCard) -> int | None:
    """FLOPs of one sample's features to its logits; ``None`` of an adaptor without rule.

    Source: the equations of the adaptors, docs/paper.md.
    """
    rule = RULES.get(card.adaptor)
    if rule is None:
        return None
    options, (taps, _, channels) = card.options, card.spec.shape
    window = window_of(card.spec.grid, options)
    grid = card.spec.grid if window is None else window.grid
    pooled = Pool(grid, own_pool(card.adaptor, options.pool)).vectors * channels
    return rule(Sizes(taps, grid.num_tokens, channels, len(card.classes), pooled, options, grid))


def backbone_flops(card: AdaptorCard) -> int | None:
    """FLOPs of one sample through the backbone's blocks to the last tap, of a backbone we know.

    A clip costs what its frames cost, seen one by one; of backbones of videos there is no figure.

    Source: losa/extract/known.py, ``Profile.flops``.
    """
    name = card.spec.backbone
    found = next((known for known in known_models() if name in (known.alias, known.name)), None)
    size = card.preprocessing.get("img_size")
    if found is None or not isinstance(size, list | tuple) or found.frames > 1:
        return None
    clip = card.preprocessing.get("clip")
    frames = 1 if clip is None else int(clip["frames"])
    anatomy = Anatomy(found.depth, found.channels, 1, (found.patch, found.patch))
    height, width = size
    profile = Profile(found.name, anatomy, found.mlp, found.parameters, (height, width))
    return frames * profile.flops(card.spec.taps[-1] + 1)


def _losa(of: Sizes) -> int:
    """``W_down`` and ``W_up`` along the axes of each plane, and the head.

    A clip's prefix tokens are mixed once along space, and not along time.
    """
    channel, token = of.options.ranks
    kind, grid = of.options.mixing_on(of.grid), of.grid
    mixed = of.l * (channel + (token if kind != "time" else 0))
    if kind in ("factorised", "time"):
        timeless = 0 if grid.is_prefix_per_step else grid.prefix
        mixed += (of.l - timeless) * of.options.along_time
    return of.k * 4 * of.d * mixed + 2 * of.e * of.y


def _linear(of: Sizes) -> int:
    return 2 * of.e * of.y


def _linear_all(of: Sizes) -> int:
    return of.k * _linear(of)


def _lst(of: Sizes) -> int:
    """Of each tap the narrowing and a transformer block; then the widening of pooled tokens."""
    width = width_of(of.options, of.d // REDUCTION)
    weights = of.d * width + (4 + 2 * MLP_RATIO) * width**2
    block = of.l * (2 * weights + 4 * of.l * width)
    return of.k * block + 2 * of.e * width + 2 * of.e * of.y


def _attentive(of: Sizes) -> int:
    """Keys and values of all tokens of a plane; query, attention and MLP of one."""
    width = width_of(of.options, of.d // 3)
    keys = of.l * (4 * of.d * width + 4 * width)
    return keys + 2 * (1 + 2 * MLP_RATIO) * width**2 + 2 * width * of.y


def _summary_attention(of: Sizes) -> int:
    """Keys and values of the pooled tokens of all taps; a query, and its way back."""
    width = width_of(of.options, 2 * of.d // 3)
    keys = of.k * of.vectors * (4 * of.d * width + 4 * width)
    return keys + 4 * of.d * width + 2 * of.d * of.y


RULES: Final[Mapping[str, Callable[[Sizes], int]]] = MappingProxyType(
    {
        "losa": _losa,
        "linear": _linear,
        "linear-all": _linear_all,
        "lst": _lst,
        "attentive": _attentive,
        "summary-attention": _summary_attention,
    }
)
"""FLOPs by the adaptor's name."""
