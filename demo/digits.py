"""Handwritten digits as PNG files: 5,000 scans of MNIST, and scikit-learn's 1,797 of 8 x 8 pixels.

MNIST gives 800 pictures for training, 200 for val and 2,000 for testing. Of the small digits every
class is split in the shares of 800, 200 and all others, rounded down: 796, 196 and 792 pictures.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demo.assets import DIGITS, MNIST, fetch
from demo.tree import staged, stratified
from losa.errors import InputError

COUNTS = MappingProxyType({"train": 800, "val": 200, "test": 2000})
FEW_COUNTS = MappingProxyType({"train": 800, "val": 200, "test": 797})
"""All 1,797 of the small digits."""
SIDE = 28
FEW_SIDE = 8
FEW_WHITE = 16
"""The small digits' brightest value."""


def mnist(cache: Path) -> Path:
    """The folder tree of MNIST's scans, written on first use."""
    folder = cache / "mnist"
    if not folder.is_dir():
        pixels, labels = read_csv(fetch(MNIST, cache) / MNIST.members, SIDE)
        write_tree(folder, pixels.astype(np.uint8), labels, COUNTS)
    return folder


def digits(cache: Path) -> Path:
    """The folder tree of scikit-learn's digits, as small as they are, written on first use."""
    # Not "digits": earlier versions of the demo called the scans of MNIST so.
    folder = cache / "digits-8x8"
    if not folder.is_dir():
        values, labels = read_csv(fetch(DIGITS, cache) / DIGITS.members, FEW_SIDE)
        pixels = np.round(values * (255 / FEW_WHITE)).astype(np.uint8)
        write_tree(folder, pixels, labels, FEW_COUNTS)
    return folder


def read_csv(path: Path, side: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Values ``[n h w]`` of square pictures and labels of a gzipped CSV, the label last in a line.

    Raises:
        InputError: the lines have another number of values.
    """
    with gzip.open(path, "rt", encoding="ascii") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.int64, ndmin=2)
    wanted = side * side + 1
    if table.shape[1] != wanted:
        raise InputError(path, f"has {table.shape[1]} columns, not {wanted}", "fetch it again")
    return table[:, :-1].reshape(-1, side, side), table[:, -1]


def write_tree(
    folder: Path,
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    counts: Mapping[str, int],
    seed: int = 0,
) -> None:
    """Write ``folder/<split>/<class>/<row>.png`` for a seeded stratified choice of rows."""
    with staged(folder) as staging:
        for split, rows in stratified(labels, counts, seed).items():
            for row in rows:
                path = staging / split / str(labels[row]) / f"{row:04d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels[row]).save(path)
