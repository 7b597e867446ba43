"""How long does it take to know that a store is sound?

Question: how many seconds does a quick verification of a store of 1,700 shards take, and how many
GB/s does a deep one read on one core?
Method: the quick one on 1,700 shards x 10 taps of small records (17,000 token files, 37,400 files
in all): it looks at every file, so the bytes do not matter. The deep one on a store shaped like
ViT-B/16's tokens, all in the page cache. Both in this process, on one thread.
Ratio against: fixed limits: 2 s, and 1 GB/s; what the checksum alone reaches is listed.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import rounds
from benchmarks.record import note, publish
from benchmarks.stores import BATCH, VIT_B, random_plan, random_planes, random_store, scratch
from losa.features import FeatureSpec, TokenGrid
from losa.store.crc import crc32
from losa.store.verify import verify_store

SHARD_ROWS: Final = 8
MOST_SECONDS: Final = 2.0
LEAST_RATE: Final = 1.0
QUICK, DEEP, CRC = "quick", "deep", "crc32 of the same bytes in memory"


def main(argv: list[str]) -> int:
    """Measure, print a table, and publish ``results/verifying.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks verifying")
    parser.add_argument("--shards", type=int, default=1700)
    parser.add_argument("--taps", type=int, default=10)
    parser.add_argument("--rows", type=int, default=832, help="of the deep one, 1.2 MB each")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", type=Path, default=None, help="where the stores are written")
    options = parser.parse_args(argv)
    small = FeatureSpec("toy", tuple(range(options.taps)), TokenGrid(2, 2, prefix=1), 8)
    plan = random_plan(small, options.shards * SHARD_ROWS, SHARD_ROWS)
    planes = random_planes(VIT_B, min(options.rows, 2 * BATCH))
    with scratch(options.dir) as folder:
        many = random_store(folder / "many.zarr", plan, random_planes(small, 2 * BATCH))
        large = random_store(folder / "large.zarr", random_plan(VIT_B, options.rows), planes)
        nbytes = options.rows * VIT_B.sample_bytes
        runs = {
            QUICK: partial(verify_seconds, many, deep=False),
            DEEP: partial(verify_seconds, large, deep=True),
            CRC: partial(crc_seconds, planes, options.rows),
        }
        times = rounds.in_turns(runs, options.rounds)
    publish("verifying", argv, report(times, nbytes))
    return 0


def report(times: rounds.Times, nbytes: int) -> dict[str, Any]:
    """The table, and the same as JSON values."""
    quick = min(times[QUICK])
    swift = rounds.outcome(hit=quick <= MOST_SECONDS)
    note(f"{QUICK}: best {quick:.2f} s of {len(times[QUICK])}, target {MOST_SECONDS:g}: {swift}")
    deep = {name: times[name] for name in (DEEP, CRC)}
    seconds = rounds.table(deep, nbytes)
    rate = nbytes / min(times[DEEP]) / 1e9
    fast = rounds.outcome(hit=rate >= LEAST_RATE)
    note(f"{DEEP}: {rate:.2f} GB/s on one core, target {LEAST_RATE:g}: {fast}")
    return {
        "quick_seconds": [round(value, 4) for value in times[QUICK]],
        "deep_seconds": seconds,
        "deep_gb_per_second": round(rate, 3),
        "bytes": nbytes,
        "hits": {QUICK: quick <= MOST_SECONDS, DEEP: rate >= LEAST_RATE},
    }


def verify_seconds(path: Path, *, deep: bool) -> float:
    """Seconds of one verification, which must find nothing."""
    started = time.perf_counter()
    problems = verify_store(path, deep=deep)
    seconds = time.perf_counter() - started
    assert problems == []
    return seconds


def crc_seconds(planes: np.ndarray, count: int) -> float:
    """Seconds of the checksums alone."""
    held = planes.shape[1]
    started = time.perf_counter()
    for plane in planes:
        for row in range(count):
            crc32(plane[row % held].data)
    return time.perf_counter() - started
