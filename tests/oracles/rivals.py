"""The rivals with attention in plain numpy and float64, written from the equations.

Arrays of weights come by the names that docs/paper.md gives them; a linear map is the pair
``(weight [out, in], bias [out])``, a norm the pair ``(gain, bias)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tests.oracles.side_network import gelu, layer_norm, pool

Array = NDArray[np.float64]
Pair = tuple[Array, Array]


def linear(x: Array, pair: Pair) -> Array:
    """W x + c."""
    return np.asarray(x @ pair[0].T + pair[1])


def norm(x: Array, pair: Pair) -> Array:
    """LayerNorm with gain and bias."""
    return np.asarray(layer_norm(x) * pair[0] + pair[1])


def attention(query: Array, key: Array, value: Array, heads: int) -> Array:
    """Sample by sample, head by head, query by query: a softmax mean of the values."""
    width = query.shape[-1] // heads
    found = np.zeros(query.shape)
    for sample, head, row in np.ndindex(len(query), heads, query.shape[1]):
        part = slice(head * width, (head + 1) * width)
        scores = key[sample, :, part] @ query[sample, row, part] / np.sqrt(width)
        shares = np.exp(scores - scores.max())
        found[sample, row, part] = (shares / shares.sum()) @ value[sample, :, part]
    return found


def feed_forward(x: Array, fc1: Pair, fc2: Pair) -> Array:
    """fc2(GELU(fc1(x)))."""
    return linear(gelu(linear(x, fc1)), fc2)


def side_block(x: Array, weights: Mapping[str, Pair], heads: int) -> Array:
    """u = x + proj(attention(LN(x))); v = u + MLP(LN(u))."""
    query, key, value = np.split(linear(norm(x, weights["norm1"]), weights["qkv"]), 3, axis=2)
    u = x + linear(attention(query, key, value, heads), weights["proj"])
    return np.asarray(
        u + feed_forward(norm(u, weights["norm2"]), weights["mlp.fc1"], weights["mlp.fc2"])
    )


def ladder(
    b: Sequence[Array],
    downs: Sequence[Pair],
    alphas: Array,
    blocks: Sequence[Mapping[str, Pair]],
    heads: int,
) -> Array:
    """s_1 = Block_1(D_1 b_1); s_i = Block_i(mu_i s_{i-1} + (1 - mu_i) D_i b_i), T = 0.1."""
    state = side_block(linear(b[0], downs[0]), blocks[0], heads)
    for plane, down, alpha, weights in zip(b[1:], downs[1:], alphas, blocks[1:], strict=True):
        mu = 1.0 / (1.0 + np.exp(-alpha / 0.1))
        state = side_block(mu * state + (1.0 - mu) * linear(plane, down), weights, heads)
    return state


def raised(plane: Array, up: Pair, name: str, prefix: int) -> Array:
    """Every token back at full width, then pooled."""
    return pool(linear(plane, up), name, prefix)


def attentive(plane: Array, query: Array, weights: Mapping[str, Pair], heads: int) -> Array:
    """u = q + attention(W_q q, W_kv LN(b_k)); v = u + MLP(LN(u)); one query."""
    key, value = np.split(linear(norm(plane, weights["norm1"]), weights["to_key_value"]), 2, axis=2)
    asked = np.repeat(linear(query, weights["to_query"]), len(plane), axis=0)
    u = query + attention(asked, key, value, heads)
    v = u + feed_forward(norm(u, weights["norm2"]), weights["mlp.fc1"], weights["mlp.fc2"])
    return np.asarray(v[:, 0])


def summary_attention(
    summaries: Array, query: Array, weights: Mapping[str, Pair], heads: int
) -> Array:
    """e = W_o attention(W_q LN(q), W_k LN(s), W_v LN(s)) + c."""
    asked = norm(query, weights["norm_query"]) @ weights["to_query"][0].T
    key = norm(summaries, weights["norm_key"]) @ weights["to_key"][0].T
    value = norm(summaries, weights["norm_value"]) @ weights["to_value"][0].T
    fused = attention(np.repeat(asked, len(summaries), axis=0), key, value, heads)
    return linear(fused[:, 0], weights["proj"])
