"""The order of rows: once for the store, and for every epoch, from seeds alone.

Both are pure functions of their arguments. They rest on Philox's raw output, whose stream numpy
keeps for ever, and a stable sort; not on ``Generator.permutation``, whose stream may change.
"""

from __future__ import annotations

import hashlib

import numpy as np
from jaxtyping import Int64

BLOCK_ROWS = 64
WINDOW_BLOCKS = 8


def row_order(samples: int, seed: int, split: str) -> Int64[np.ndarray, "n"]:
    """Data-set position of each row of a split: the global shuffle, paid once at writing time."""
    return _permutation(samples, seed, int.from_bytes(hashlib.sha256(split.encode()).digest()[:8]))


def epoch_order(
    rows: Int64[np.ndarray, "n"],
    seed: int,
    epoch: int,
    block: int = BLOCK_ROWS,
    window: int = WINDOW_BLOCKS,
) -> Int64[np.ndarray, "n"]:
    """The rows in the order of one epoch: blocks are permuted, then rows within windows of blocks.

    Neighbouring rows stay near each other in time, so that a store larger than memory is read in
    long runs, while a window mixes ``block * window`` rows; the store's own order is random.

    Source: CorgiPile (arXiv 2206.05830), with the offline shuffle of Corgi^2 (arXiv 2309.01640).

    Example:
        >>> order = epoch_order(np.arange(1000), seed=0, epoch=3)
        >>> sorted(order.tolist()) == list(range(1000))
        True
    """
    blocks = -(-len(rows) // block)
    pieces = []
    shuffled = _permutation(blocks, seed, 2 * epoch)
    for number, start in enumerate(range(0, blocks, window)):
        members = [rows[i * block : (i + 1) * block] for i in shuffled[start : start + window]]
        joined = np.concatenate(members)
        pieces.append(joined[_permutation(len(joined), seed, 2 * epoch + 1, number)])
    return np.concatenate(pieces) if pieces else rows[:0]


def _permutation(length: int, seed: int, stream: int, substream: int = 0) -> Int64[np.ndarray, "n"]:
    key = np.array([seed, stream & (2**64 - 1)], dtype=np.uint64)
    counter = np.array([0, 0, 0, substream], dtype=np.uint64)
    raw = np.random.Philox(key=key, counter=counter).random_raw(length)
    return np.argsort(raw, kind="stable").astype(np.int64, copy=False)
