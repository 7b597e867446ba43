"""M1: how fast are shuffled batches read from a store?

Question: what does reading batches of 32 shuffled rows at 4 taps from a warm store cost, against
the limit (copying the same permutation of records from an array in RAM into the same buffers), and
against what else people read features with?
Method: a float16 store shaped like ViT-B/16's tokens (197 x 768) is written by losa; each contender
fills the same reused ``[k b l d]`` buffers in the same order with the same number of threads;
rounds are interleaved. Buffers and array are allocated by torch, as the loader's are: 64-byte
alignment on both sides is worth a third of a copy's speed. zarr-python and tensorstore read losa's
own files; the others have the same records in their own. Contenders that are slower by far read
two batches a round, scaled to the epoch.
Checksums were compared in a first pass, outside the clock, as in training, where only the first
epoch compares them; what comparing costs is listed too.
Ratio against: RAM copy (target >= 0.85) and zarr's oindex (target >= 20x).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks import contenders, rounds
from benchmarks.contenders import Reads, epoch_seconds
from benchmarks.record import note, publish
from benchmarks.stores import BATCH, VIT_B, aligned, random_plan, random_planes, random_store
from benchmarks.stores import scratch as new_folder
from losa.store import open_store

FEW: Final = 2
"""Batches that the slow contenders read a round."""
LIMIT: Final = "copy from RAM"
OINDEX: Final = "zarr oindex"


def main(argv: list[str]) -> int:
    """Measure, print a table, and publish ``results/reader.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks reader")
    parser.add_argument("--rows", type=int, default=512, help="rows of the store (1.2 MB each)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dir", type=Path, default=None, help="where the store is written")
    options = parser.parse_args(argv)
    with new_folder(options.dir) as folder:
        planes = random_planes(VIT_B, options.rows)
        random_store(folder / "store.zarr", random_plan(VIT_B, options.rows), planes)
        result = measure(folder, planes, rounds_=options.rounds, threads=options.threads)
    publish("reader", argv, result)
    return 0


def measure(folder: Path, planes: np.ndarray, *, rounds_: int, threads: int) -> dict[str, object]:
    """Seconds an epoch of each contender, and losa's ratios."""
    count = planes.shape[1]
    permutation = np.random.default_rng(1).permutation(count)
    order = permutation[: count // BATCH * BATCH].reshape(-1, BATCH)
    buffers = aligned((4, len(planes), BATCH, *planes.shape[2:]))
    with ThreadPoolExecutor(threads) as pool:
        runs: dict[str, Callable[[], float]] = {}
        for name, reads in quick(folder, planes).items():
            contenders.check(name, reads, order[0], planes)
            epoch_seconds(reads, order, buffers, pool)
            runs[name] = partial(epoch_seconds, reads, order, buffers, pool)
        part = order[:FEW]
        for name, reads in slow(folder, planes, threads).items():
            contenders.check(name, reads, order[0], planes)
            runs[name] = partial(_scaled, reads, part, buffers, pool, len(order) / len(part))
        times = rounds.in_turns(runs, rounds_)
    epoch_bytes = order.size * planes[:, 0].nbytes
    return report(times, epoch_bytes, threads)


def quick(folder: Path, planes: np.ndarray) -> dict[str, Reads]:
    """Contenders that read whole epochs."""
    path = folder / "store.zarr"
    raw = contenders.write_raw(folder / "raw", planes)
    return {
        "losa": contenders.losa(open_store(path).split("train")),
        LIMIT: contenders.memory(planes),
        "losa, checksums compared": contenders.losa(
            open_store(path, verify="always").split("train")
        ),
        "np.memmap fancy index": contenders.memmap(raw, planes.shape),
    }


def slow(folder: Path, planes: np.ndarray, threads: int) -> dict[str, Reads]:
    """Contenders that read a few batches."""
    path = folder / "store.zarr"
    found = {
        OINDEX: contenders.zarr_python(path, VIT_B.taps),
        "h5py, a chunk a record": contenders.hdf5(
            contenders.write_hdf5(folder / "peer.h5", planes)
        ),
        "torch.load, a file a sample": contenders.saved(
            contenders.write_saved(folder / "saved", planes), threads
        ),
    }
    if contenders.has_tensorstore():
        found["tensorstore"] = contenders.tensorstore(path, VIT_B.taps, threads)
    return found


def report(times: rounds.Times, epoch_bytes: int, threads: int) -> dict[str, object]:
    """The table, and the same as JSON values."""
    note(f"{epoch_bytes / 1e6:.0f} MB an epoch, {threads} threads")
    ratios = {
        "losa_to_ram_copy": rounds.verdict(
            "M1", rounds.ratio(times, LIMIT, "losa"), "of a copy from RAM", 0.85
        ),
        "losa_to_oindex": rounds.verdict(
            "M1", rounds.ratio(times, OINDEX, "losa"), "times zarr's oindex", 20
        ),
    }
    return {
        "seconds": rounds.table(times, epoch_bytes),
        "epoch_bytes": epoch_bytes,
        "threads": threads,
        "ratios": ratios,
        "hits": {name: ratio["hit"] for name, ratio in ratios.items()},
    }


def _scaled(
    reads: Reads,
    part: np.ndarray,
    buffers: np.ndarray,
    pool: ThreadPoolExecutor,
    scale: float,
) -> float:
    return epoch_seconds(reads, part, buffers, pool) * scale
