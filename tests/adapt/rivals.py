"""What the tests of the rivals share: a small spec, its planes, and weights for the oracle."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from losa.adapt.adaptor import Adaptor
from losa.features import FeatureSpec, TokenGrid
from tests.oracles import side_network as oracle

Array = NDArray[np.float64]

GRID: Final = TokenGrid(2, 3, prefix=2)
NO_PREFIX: Final = TokenGrid(2, 3)
CLASSES: Final = 5


def spec_of(grid: TokenGrid, taps: tuple[int, ...] = (1, 3, 5)) -> FeatureSpec:
    return FeatureSpec("tiny", taps, grid, 128)


def planes_of(spec: FeatureSpec, samples: int = 4) -> Tensor:
    taps, tokens, channels = spec.shape
    return torch.randn(taps, samples, tokens, channels, generator=torch.Generator().manual_seed(9))


def disturbed(adaptor: Adaptor, seed: int = 0) -> Adaptor:
    """The adaptor with no weight left at a value that could hide a mistake, and statistics."""
    draw = torch.Generator().manual_seed(seed)
    taps, _, channels = adaptor.spec.shape
    with torch.no_grad():
        for weight in adaptor.parameters():
            # Small: a softmax far from uniform would pass a mistake in its smaller shares.
            weight.add_(torch.randn(weight.shape, generator=draw), alpha=0.1)
    adaptor.standardise.load(
        torch.randn(taps, channels, generator=draw),
        torch.rand(taps, channels, generator=draw) + 0.5,
    )
    return adaptor


def standardised(adaptor: Adaptor, planes: Tensor) -> list[Array]:
    """Planes as the oracle standardises them by the adaptor's statistics."""
    mean, std = (array_of(value) for value in (adaptor.standardise.mean, adaptor.standardise.std))
    return oracle.standardise(array_of(planes), mean, std)


def array_of(value: Tensor) -> Array:
    return value.detach().double().numpy()


def pairs_of(module: nn.Module) -> dict[str, tuple[Array, Array]]:
    """Weight and bias of every layer below a module, by its name; no bias is a zero."""
    found = {}
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear | nn.LayerNorm):
            own = {key: array_of(value) for key, value in layer.named_parameters()}
            found[name] = (own["weight"], own.get("bias", np.zeros(len(own["weight"]))))
    return found


def logits_of(adaptor: Adaptor, e: Array) -> Array:
    """The oracle's head on what the adaptor's head is to see."""
    pairs = pairs_of(adaptor)
    return oracle.head(e, (*pairs["head.norm"], *pairs["head.linear"]))


def without_gradient(adaptor: Adaptor) -> list[str]:
    """Names of the weights that a step on a batch would not move."""
    adaptor(planes_of(adaptor.spec)).square().sum().backward()
    return [
        name
        for name, weight in adaptor.named_parameters()
        if weight.grad is None or not bool((weight.grad != 0).any())
    ]
