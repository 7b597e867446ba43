"""The side network and its baselines in plain numpy and float64, written from the equations.

Planes are ``[b, l, d]`` arrays in ascending depth. A mixer is the tuple
``(channel_down [r, d], channel_up [d, r], token_down [r, l], token_up [l, r])``, a head the tuple
``(norm_weight [e], norm_bias [e], weight [y, e], bias [y])``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
MixerWeights = tuple[Array, Array, Array, Array]
HeadWeights = tuple[Array, Array, Array, Array]

EPSILON = 1e-5
_erf = np.vectorize(math.erf, otypes=[np.float64])


def gelu(x: Array) -> Array:
    """x times the standard normal distribution function at x."""
    return np.asarray(0.5 * x * (1.0 + _erf(x / math.sqrt(2.0))))


def layer_norm(x: Array) -> Array:
    """Zero mean and unit variance along the last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + EPSILON))


def mixer(x: Array, weights: MixerWeights, order: str, norm: bool) -> Array:
    """u = x + f_channel(x); v = u + f_token(u); or the other way round."""
    channel_down, channel_up, token_down, token_up = weights
    for axis in order.split("-"):
        z = layer_norm(x) if norm else x
        if axis == "channel":
            x = x + gelu(z @ channel_down.T) @ channel_up.T
        else:
            columns = np.swapaxes(z, 1, 2)  # [b, d, l]
            x = x + np.swapaxes(gelu(columns @ token_down.T) @ token_up.T, 1, 2)
    return x


def standardise(planes: Iterable[Array], mean: Array, std: Array) -> list[Array]:
    """Per tap and channel."""
    return [(plane - m) / s for plane, m, s in zip(planes, mean, std, strict=True)]


def side_network(
    b: Sequence[Array],
    mixers: Sequence[MixerWeights],
    residual: str,
    order: str,
    norm: bool,
    start: str = "auto",
) -> Array:
    """What the head sees of standardised planes b_1 .. b_k; y_0 = b_1 if it starts at the first."""
    y = b[0] if start == "first" else np.zeros_like(b[0])
    if residual == "refine":
        v = y
        for b_i, weights in zip(b, mixers, strict=True):
            v = mixer(b_i + y, weights, order, norm)
            y = v - b_i
        return v
    if residual == "sum":
        for b_i, weights in zip(b, mixers, strict=True):
            y = mixer(b_i + y, weights, order, norm)
        return y
    y = b[0]
    for b_i, weights in zip(b, mixers, strict=True):
        z = b_i + y
        y = y + (mixer(z, weights, order, norm) - z)
    return y


def pool(plane: Array, name: str, prefix: int) -> Array:
    """``cls``, ``mean`` (of the patch tokens), or ``cls+mean`` side by side."""
    parts = {"cls": plane[:, 0], "mean": plane[:, prefix:].mean(axis=1)}
    return np.concatenate([parts[part] for part in name.split("+")], axis=1)


def head(e: Array, weights: HeadWeights) -> Array:
    """LayerNorm with affine weights, then a linear map."""
    norm_weight, norm_bias, weight, bias = weights
    return np.asarray((layer_norm(e) * norm_weight + norm_bias) @ weight.T + bias)
