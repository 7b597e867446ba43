"""The adaptors by name: what ``--adaptor`` may say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from torch import nn

from losa.adapt.adaptor import Adaptor, LoSA, SideOptions
from losa.adapt.baselines import Linear, LinearAll
from losa.errors import UsageError
from losa.features import FeatureSpec


class AdaptorFactory(Protocol):
    """Builds one kind of adaptor; its class, as a rule."""

    def __call__(self, spec: FeatureSpec, *, num_classes: int, options: SideOptions) -> Adaptor:
        """Build an untrained adaptor from torch's global random numbers."""


ADAPTORS: Final[Mapping[str, AdaptorFactory]] = {
    "losa": LoSA,
    "linear": Linear,
    "linear-all": LinearAll,
}

WITHOUT_MIXERS: Final = frozenset({"linear", "linear-all"})
MIXER_OPTIONS: Final = ("rank", "token_rank", "order", "residual", "mixer_norm", "dropout")
"""Options that mean nothing to an adaptor without mixers."""


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
