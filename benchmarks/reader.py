"""M1: how fast are shuffled batches read from a store?

Question: what does reading batches of 32 shuffled rows at 4 taps from a warm store cost, against
the limit (copying the same permutation of records from an array in RAM into the same buffers) and
against zarr-python reading the same files through ``oindex``?
Method: a float16 store shaped like ViT-B/16's tokens (197 x 768) is written by losa; each contender
fills the same reused ``[k b l d]`` buffers in the same order with the same number of threads;
rounds are interleaved, the best round of each counts. Buffers and array are allocated by torch, as
the loader's are: 64-byte alignment on both sides is worth a third of a copy's speed.
Checksums were compared in a first pass, outside the clock, as in training, where only the first
epoch compares them; what comparing costs is listed too.
Ratio against: RAM copy (target >= 0.85) and zarr's oindex (target >= 20x).
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import zarr

from benchmarks.record import note, publish
from losa.features import FeatureSpec, Sample, TokenGrid
from losa.store import Plan, SplitReader, StoreWriter, create_store, layout, open_store
from losa.store.plan import Numerics, SplitPlan

TAPS = (2, 5, 8, 11)
BATCH = 32
Fill = Callable[[np.ndarray, int, np.ndarray], None]


def main(argv: list[str]) -> int:
    """Measure, print a table, and publish ``results/reader.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks reader")
    parser.add_argument("--rows", type=int, default=512, help="rows of the store (1.2 MB each)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dir", type=Path, default=None, help="where the store is written")
    options = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="losa-bench-", dir=options.dir))
    try:
        path = folder / "store.zarr"
        ram = write_store(path, options.rows)
        result = measure(path, ram, rounds=options.rounds, threads=options.threads)
    finally:
        shutil.rmtree(folder)
    publish("reader", argv, result)
    return 0


def write_store(path: Path, rows: int) -> np.ndarray:
    """Write a store of random features and return them as ``[k n l d]``."""
    spec = FeatureSpec("vit_b", TAPS, TokenGrid(14, 14, prefix=1), 768)
    plan = Plan(
        spec=spec,
        backbone={"model": "random", "weights": "0" * 64, "tokens": "all"},
        preprocessing={},
        dataset="random",
        classes=("only",),
        splits={"train": SplitPlan(rows, rows, "0" * 64)},
        shard_rows=layout.rows_per_shard(spec.record_bytes),
        order_seed=0,
        calibration_rows=1,
        numerics=Numerics("cpu", None, BATCH),
        exponents=(0,) * len(TAPS),
    )
    bits = np.random.default_rng(0).integers(0, 2**15 - 2**10, (4, rows, 197, 768), np.uint16)
    ram = aligned(bits.shape)
    ram[:] = bits.view(np.float16)
    ones = np.ones((len(TAPS), 768), np.float32)
    listed = {"train": [Sample(str(i), str(i), 0) for i in range(rows)]}
    statistics = {"mean": ones, "std": ones, "absmax": ones}
    create_store(path, plan, listed, statistics, durable=False)
    with StoreWriter(path, durable=False) as writer:
        for task in writer.claimed():
            with writer.shard(task) as shard:
                for first in range(task.first, task.stop, BATCH):
                    stop = min(first + BATCH, task.stop)
                    shard.write(list(ram[:, first:stop]), np.ones(stop - first, np.uint8))
        writer.seal()
    return ram


def aligned(shape: tuple[int, ...]) -> np.ndarray:
    """A float16 array as torch allocates them, touched once."""
    array: np.ndarray = torch.zeros(shape, dtype=torch.float16).numpy()
    return array


def measure(path: Path, ram: np.ndarray, *, rounds: int, threads: int) -> dict[str, object]:
    """Best seconds an epoch of each contender, and their ratios."""
    rows = ram.shape[1]
    permutation = np.random.default_rng(1).permutation(rows)
    order = permutation[: rows // BATCH * BATCH].reshape(-1, BATCH)
    buffers = aligned((4, len(TAPS), BATCH, 197, 768))
    warm = losa_fill(open_store(path).split("train"))
    contenders = {"losa": warm, "copy from RAM": ram_fill(ram)}
    best = dict.fromkeys(contenders, float("inf"))
    with ThreadPoolExecutor(threads) as pool:
        for fill in contenders.values():
            seconds(fill, order, buffers, pool)
        for _ in range(rounds):
            for name, fill in contenders.items():
                best[name] = min(best[name], seconds(fill, order, buffers, pool))
        checking = losa_fill(open_store(path, verify="always").split("train"))
        best["losa, checksums compared"] = seconds(checking, order, buffers, pool)
        # zarr-python runs its own threads; a few batches are enough to see its rate.
        few = order[: min(len(order), 4)]
        best["zarr oindex"] = seconds(zarr_fill(path), few, buffers, pool) * len(order) / len(few)
    return report(best, order.size * ram[:, 0].nbytes, threads)


def seconds(fill: Fill, order: np.ndarray, buffers: np.ndarray, pool: ThreadPoolExecutor) -> float:
    """Wall seconds to fill the buffers with every batch of an epoch, one task a tap."""
    started = time.perf_counter()
    for number, batch in enumerate(order):
        out = buffers[number % len(buffers)]
        list(pool.map(lambda tap, b=batch, o=out: fill(b, tap, o[tap]), range(len(TAPS))))
    return time.perf_counter() - started


def losa_fill(reader: SplitReader) -> Fill:
    """Read through the store's reader."""

    def fill(batch: np.ndarray, tap: int, out: np.ndarray) -> None:
        reader.read_into(batch, (TAPS[tap],), out[None])

    return fill


def ram_fill(ram: np.ndarray) -> Fill:
    """The limit: gather the same records from RAM."""

    def fill(batch: np.ndarray, tap: int, out: np.ndarray) -> None:
        np.take(ram[tap], batch, axis=0, out=out, mode="clip")

    return fill


def zarr_fill(path: Path) -> Fill:
    """zarr-python's orthogonal indexing over the same files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # consolidated metadata of v3 is not in the spec yet
        group = zarr.open_group(str(path), mode="r")
        arrays = [group[layout.tokens_path("train", tap)] for tap in TAPS]

    def fill(batch: np.ndarray, tap: int, out: np.ndarray) -> None:
        array = arrays[tap]
        assert isinstance(array, zarr.Array)
        out[:] = array.oindex[batch]

    return fill


def report(best: dict[str, float], epoch_bytes: int, threads: int) -> dict[str, object]:
    """The table, and the same as JSON values."""
    note(f"{epoch_bytes / 1e6:.0f} MB an epoch, {threads} threads, best round")
    for name, value in best.items():
        rate = epoch_bytes / value / 1e9
        note(f"{name:26} {value * 1e3:9.1f} ms  {rate:6.2f} GB/s")
    ratios = {
        "ram_copy_over_losa": best["copy from RAM"] / best["losa"],
        "oindex_over_losa": best["zarr oindex"] / best["losa"],
    }
    note(f"M1: {ratios['ram_copy_over_losa']:.2f} of a copy from RAM (target 0.85)")
    note(f"M1: {ratios['oindex_over_losa']:.0f} x zarr's oindex (target 20)")
    rounded = {name: round(value, 5) for name, value in best.items()}
    return {"seconds": rounded, "epoch_bytes": epoch_bytes, "threads": threads, "ratios": ratios}
