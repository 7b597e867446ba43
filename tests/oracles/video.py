"""Mixing of space and time in plain numpy and float64, token by token, from the equations.

Tokens are named by lists of indices, so that nothing depends on how a plane can be reshaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.oracles.side_network import gelu, layer_norm

Array = NDArray[np.float64]
Pair = tuple[Array, Array]
"""W_down and W_up."""


@dataclass(frozen=True)
class Video:
    """Prefix tokens, then patches of one time step after another."""

    time: int
    positions: int
    prefix: int
    is_per_step: bool

    def step(self, step: int) -> list[int]:
        """The tokens of a time step: its prefix tokens or else the clip's, and its patches."""
        count = self.prefix // self.time
        own = range(step * count, (step + 1) * count) if self.is_per_step else range(self.prefix)
        first = self.prefix + step * self.positions
        return [*own, *range(first, first + self.positions)]

    def line(self, place: int) -> list[int]:
        """The tokens of a place in all time steps."""
        return [self.step(step)[place] for step in range(self.time)]


def space(x: Array, pair: Pair, video: Video) -> Array:
    """f_space: every step by itself; what several steps say of a token is averaged."""
    down, up = pair
    found, counts = np.zeros_like(x), np.zeros(x.shape[1])
    for step in range(video.time):
        tokens = video.step(step)
        for sample in range(len(x)):
            found[sample, tokens] += up @ gelu(down @ x[sample, tokens])
        counts[tokens] += 1
    return np.asarray(found / counts[:, None])


def time(x: Array, pair: Pair, video: Video) -> Array:
    """f_time: every place by itself; a token that all steps share has no time."""
    down, up = pair
    found = np.zeros_like(x)
    places = len(video.step(0))
    for place in range(0 if video.is_per_step else video.prefix, places):
        tokens = video.line(place)
        for sample in range(len(x)):
            found[sample, tokens] = up @ gelu(down @ x[sample, tokens])
    return found


def channel(x: Array, pair: Pair) -> Array:
    """f_channel."""
    return np.asarray(gelu(x @ pair[0].T) @ pair[1].T)


def mixer(
    x: Array, weights: Mapping[str, Pair], axes: Sequence[str], video: Video, *, norm: bool = False
) -> Array:
    """One axis after the other, each on its own residual."""
    for axis in axes:
        z = layer_norm(x) if norm else x
        if axis == "channel":
            x = x + channel(z, weights[axis])
        else:
            x = x + (space if axis == "space" else time)(z, weights[axis], video)
    return x


def pool(plane: Array, name: str, video: Video) -> Array:
    """The first prefix token of every step, or of the clip, averaged; the mean patch; or both."""
    heads = [video.step(step)[0] for step in range(video.time)]
    parts = {
        "cls": plane[:, heads].mean(axis=1),
        "mean": plane[:, video.prefix :].mean(axis=1),
    }
    return np.concatenate([parts[part] for part in name.split("+")], axis=1)
