"""The adaptors by name: what ``--adaptor`` may say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from torch import nn

from losa.adapt.adaptor import Adaptor, LoSA
from losa.adapt.attentive import AttentiveProbe
from losa.adapt.baselines import Linear, LinearAll
from losa.adapt.lst import LST
from losa.adapt.options import SideOptions
from losa.adapt.summary import SummaryAttention
from losa.errors import UsageError
from losa.features import FeatureSpec


class AdaptorFactory(Protocol):
    """Builds one kind of adaptor; its class, as a rule."""

    def __call__(self, spec: FeatureSpec, *, num_classes: int, options: SideOptions) -> Adaptor:
        """Build an untrained adaptor from torch's global random numbers."""


_OF_MIXERS: Final = (
    *("rank", "token_rank", "order", "residual"),
    *("start", "share_mixers", "init_scale", "mixer_norm"),
    *("token_mixing", "token_order", "time_rank"),
)

ADAPTORS: Final[Mapping[str, AdaptorFactory]] = {
    "losa": LoSA,
    "linear": Linear,
    "linear-all": LinearAll,
    "lst": LST,
    "attentive": AttentiveProbe,
    "summary-attention": SummaryAttention,
}

UNUSED_OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "losa": ("width",),
    "linear": (*_OF_MIXERS, "dropout", "width"),
    "linear-all": (*_OF_MIXERS, "dropout", "width"),
    "lst": _OF_MIXERS,
    "attentive": (*_OF_MIXERS, "pool"),
    "summary-attention": _OF_MIXERS,
}
"""Options of a side network that mean nothing to the adaptor of that name."""


def build_adaptor(name: str, spec: FeatureSpec, num_classes: int, options: SideOptions) -> Adaptor:
    """Build the adaptor of that name, untrained and not yet standardising.

    Raises:
        UsageError: no adaptor has that name, or the options do not fit the spec's grid.
    """
    if name not in ADAPTORS:
        raise UsageError("--adaptor", f"{name!r} is unknown", f"use one of {', '.join(ADAPTORS)}")
    return ADAPTORS[name](spec, num_classes=num_classes, options=options)


def trainable_parameters(module: nn.Module) -> int:
    """Number of weights that training may change."""
    return sum(weight.numel() for weight in module.parameters() if weight.requires_grad)
