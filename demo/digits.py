"""Scanned handwritten digits as PNG files: 800 train, 200 val and 2,000 test of 5,000."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demo.assets import DIGITS, fetch
from demo.tree import staged, stratified
from losa.errors import InputError

COUNTS = MappingProxyType({"train": 800, "val": 200, "test": 2000})
SIDE = 28


def digits(cache: Path) -> Path:
    """The folder tree of the digits, written on first use."""
    folder = cache / "digits"
    if not folder.is_dir():
        pixels, labels = read_csv(fetch(DIGITS, cache) / DIGITS.members)
        write_tree(folder, pixels, labels, COUNTS)
    return folder


def read_csv(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures ``[n h w]`` and labels of a gzipped CSV: 784 pixels and a label a line.

    Raises:
        InputError: the lines do not have 785 numbers.
    """
    with gzip.open(path, "rt", encoding="ascii") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.int64, ndmin=2)
    if table.shape[1] != SIDE * SIDE + 1:
        raise InputError(path, f"has {table.shape[1]} columns, not 785", "fetch it again")
    return table[:, :-1].astype(np.uint8).reshape(-1, SIDE, SIDE), table[:, -1]


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
