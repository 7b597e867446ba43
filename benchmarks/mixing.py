"""M11: are batches of a class-sorted data set as mixed as independent draws?

Question: how many distinct classes does a batch hold, when the data set is listed class by class
(as folders are), against what drawing rows at random would give?
Method: 200 classes x 100 samples, batches of 32. losa shuffles twice: once for good when the store
is written (``row_order``), then blocks and windows of blocks in every epoch (``epoch_order``). The
others are that without the first, without windows, and what readers of sequential files do:
nothing, or a shuffle buffer. Pure arithmetic on orders: nothing is read.
Ratio against: the expectation of draws without replacement (target >= 0.98 in every epoch).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from math import comb
from typing import Final

import numpy as np

from benchmarks.record import note, publish
from benchmarks.rounds import outcome
from losa.store.order import BLOCK_ROWS, epoch_order, row_order

LOSA: Final = "losa: store order, then epoch order"
BUFFER: Final = 1024
TARGET: Final = 0.98


def main(argv: list[str]) -> int:
    """Measure, print a table, and publish ``results/mixing.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks mixing")
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--samples", type=int, default=100, help="of each class")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args(argv)
    listed = np.repeat(np.arange(options.classes), options.samples)
    expected = expectation(options.classes, options.samples, options.batch_size)
    note(f"{expected:.2f} distinct classes expected in a batch of {options.batch_size}")
    found = {}
    for name, order in orders(listed).items():
        ratios = [
            distinct(listed[order(epoch)], options.batch_size) / expected
            for epoch in range(options.epochs)
        ]
        mean = float(np.mean(ratios))
        note(f"{name:46} {mean:.3f} of i.i.d. (least {min(ratios):.3f})")
        found[name] = {"mean": round(mean, 4), "least": round(min(ratios), 4)}
    least = found[LOSA]["least"]
    hit = least >= TARGET
    note(f"M11: {least:.3f} of i.i.d., target {TARGET:g}: {outcome(hit=hit)}")
    result = {"expected": expected, "of_iid": found, "target": TARGET, "hits": {"of_iid": hit}}
    publish("mixing", argv, result)
    return 0


def orders(listed: np.ndarray) -> dict[str, Callable[[int], np.ndarray]]:
    """Positions in the listing, in the order of an epoch, by the way of shuffling."""
    count = len(listed)
    rows = np.arange(count)
    stored = row_order(count, 0, "train")
    return {
        LOSA: lambda epoch: stored[epoch_order(rows, 0, epoch)],
        "store order alone": lambda _: stored,
        "store order, then blocks without windows": lambda epoch: stored[blocks(count, epoch)],
        "epoch order alone": lambda epoch: epoch_order(rows, 0, epoch),
        f"sequential with a shuffle buffer of {BUFFER}": lambda epoch: buffered(count, epoch),
        "sequential": lambda _: rows,
    }


def expectation(classes: int, samples: int, batch_size: int) -> float:
    """Distinct classes in a batch drawn without replacement: each is missed by chance alone.

    Example:
        >>> expectation(2, 1, 2), round(expectation(2, 1, 1), 3)
        (2.0, 1.0)
    """
    total = classes * samples
    return classes * (1 - comb(total - samples, batch_size) / comb(total, batch_size))


def distinct(labels: np.ndarray, batch_size: int) -> float:
    """Mean number of distinct labels in the whole batches.

    Example:
        >>> distinct(np.array([0, 0, 1, 2]), 2)
        1.5
    """
    whole = labels[: len(labels) // batch_size * batch_size].reshape(-1, batch_size)
    return float(np.mean([len(np.unique(batch)) for batch in whole]))


def blocks(count: int, epoch: int) -> np.ndarray:
    """Blocks of rows in random order, each read through."""
    starts = np.random.default_rng(epoch).permutation(np.arange(0, count, BLOCK_ROWS))
    return np.concatenate(
        [np.arange(start, min(count, start + BLOCK_ROWS)) for start in starts.tolist()]
    )


def buffered(count: int, epoch: int) -> np.ndarray:
    """What a stream's shuffle buffer does: a random one leaves, the next one enters."""
    generator = np.random.default_rng(epoch)
    held = list(range(min(BUFFER, count)))
    left = []
    for coming in range(len(held), count):
        place = int(generator.integers(len(held)))
        left.append(held[place])
        held[place] = coming
    return np.array([*left, *generator.permutation(held).tolist()])
