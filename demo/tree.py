"""Seeded folder trees of pictures: which row goes to which split, and folders that appear whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from losa.errors import InputError
from losa.extract.images import EXTENSIONS


def stratified(
    labels: NDArray[Any], counts: Mapping[str, int], seed: int
) -> dict[str, NDArray[np.int64]]:
    """Disjoint rows of each split, in which every class has the share it has in ``labels``.

    Shares are rounded down to whole pictures per class.

    Raises:
        InputError: the splits ask for more pictures than there are.

    Example:
        >>> rows = stratified(np.array([0, 1] * 4), {"train": 4, "test": 2}, seed=0)
        >>> [int(row) % 2 for row in rows["train"]], rows["test"].size
        ([0, 0, 1, 1], 2)
    """
    if sum(counts.values()) > labels.size:
        raise InputError("splits", f"{dict(counts)} of {labels.size} pictures", "ask for fewer")
    generator = np.random.default_rng(seed)
    parts: dict[str, list[NDArray[np.int64]]] = {split: [] for split in counts}
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        start = 0
        for split, count in counts.items():
            share = count * rows.size // labels.size
            parts[split].append(np.sort(rows[start : start + share]))
            start += share
    return {split: np.concatenate(rows) for split, rows in parts.items()}


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes the name ``folder`` only once the block has ended well.

    That ``folder`` exists therefore means that it is whole.
    """
    staging = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def some_picture(folder: Path, seed: int = 0) -> Path:
    """A picture below ``folder``, drawn with ``seed`` from their sorted paths.

    Raises:
        InputError: there is no picture.
    """
    pictures = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
    if not pictures:
        raise InputError(folder, "holds no pictures", "give a folder of split/class/file")
    return pictures[int(np.random.default_rng(seed).integers(len(pictures)))]
