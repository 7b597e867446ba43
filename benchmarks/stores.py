"""Stores of random bits for the benchmarks, written through the real writer."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import torch

from losa.features import FeatureSpec, Sample, TokenGrid
from losa.store import Plan, StoreWriter, create_store, layout
from losa.store.plan import Numerics, SplitPlan

VIT_B: Final = FeatureSpec("vit_b", (2, 5, 8, 11), TokenGrid(14, 14, prefix=1), 768)
"""What M1 to M3 are about: four taps of ViT-B/16, 302,592 bytes a record."""
BATCH: Final = 32


@contextmanager
def scratch(folder: Path | None) -> Iterator[Path]:
    """A new folder below ``folder`` (the system's own for temporary files), removed at the end.

    ``folder`` is made where it is not there, and stays.
    """
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix="losa-bench-", dir=folder)).resolve()
    try:
        yield path
    finally:
        shutil.rmtree(path)


def aligned(shape: tuple[int, ...]) -> np.ndarray:
    """A float16 array as torch allocates them: on a multiple of 64 bytes, touched once."""
    array: np.ndarray = torch.zeros(shape, dtype=torch.float16).numpy()
    return array


def random_planes(spec: FeatureSpec, rows: int) -> np.ndarray:
    """Finite random float16 bits ``[k n l d]``."""
    taps, tokens, channels = spec.shape
    ram = aligned((taps, rows, tokens, channels))
    generator = np.random.default_rng(0)
    for plane in ram:  # one tap at a time: the bits are drawn beside the array
        plane[:] = generator.integers(0, 2**15 - 2**10, plane.shape, np.uint16).view(np.float16)
    return ram


def random_plan(spec: FeatureSpec, rows: int, shard_rows: int | None = None) -> Plan:
    """The plan of a store of one split, ``train``."""
    return Plan(
        spec=spec,
        backbone={"model": "random", "weights": "0" * 64, "tokens": "all"},
        preprocessing={},
        dataset="random",
        classes=("only",),
        splits={"train": SplitPlan(rows, rows, "0" * 64)},
        shard_rows=shard_rows or layout.rows_per_shard(spec.record_bytes),
        order_seed=0,
        calibration_rows=1,
        numerics=Numerics("cpu", None, BATCH),
        exponents=(0,) * len(spec.taps),
    )


def begin(path: Path, plan: Plan) -> None:
    """Create the empty store of a plan; all labels are 0."""
    taps, _, channels = plan.spec.shape
    ones = np.ones((taps, channels), np.float32)
    listed = {"train": [Sample(str(row), str(row), 0) for row in range(plan.splits["train"].rows)]}
    statistics = {"mean": ones, "std": ones, "absmax": ones}
    create_store(path, plan, listed, statistics, durable=False)


def fill(path: Path, planes: np.ndarray, *, durable: bool = False) -> None:
    """Write every shard from ``planes`` ``[k n l d]``, whose rows repeat when the split has more.

    Precondition: the rows of ``planes`` are a multiple of :data:`BATCH`, or all the split has.
    """
    held = planes.shape[1]
    with StoreWriter(path, durable=durable) as writer:
        for task in writer.claimed():
            with writer.shard(task) as shard:
                for first in range(task.first, task.stop, BATCH):
                    count = min(BATCH, task.stop - first)
                    rows = np.arange(first, first + count) % held
                    part = planes[:, rows[0] : rows[0] + count]
                    if part.shape[1] < count:
                        part = planes[:, rows]
                    shard.write(list(part), np.ones(count, np.uint8))
        writer.seal()


def random_store(path: Path, plan: Plan, planes: np.ndarray) -> Path:
    """A sealed store of ``planes``."""
    begin(path, plan)
    fill(path, planes)
    return path
