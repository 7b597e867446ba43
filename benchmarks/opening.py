"""M8: how long until the first batch, at the start and in the middle of an epoch?

Question: what do opening a store of 1,000 shards x 12 taps and reading its first shuffled batch
take, and what does resuming in the middle of an epoch?
Method: small records (5 tokens x 8 channels), warm, because what is asked is what the number of
files costs and not what the bytes do. A shard has 64 rows, the fewest that the format gives to
records of up to 4 MiB: of these a batch of 32 meets the most shards that it can, a window's eight.
Every round is a fresh process whose clock starts after its imports; zarr must not be among them.
``store`` opens, learns the rows' labels and status, shuffles an epoch and reads a batch at all taps
with the store alone; ``loader`` does the same through the training's ring and loader, its buffers
and threads included. A resume asks a new epoch of the open loader at its middle; the one of
1,000,000 rows reads from an empty table, so that only the order is timed.
Ratio against: fixed limits: 50 ms to open, 10 ms to resume.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from losa.features import FeatureSpec, TokenGrid

if TYPE_CHECKING:
    from losa.adapt.loader import FeatureLoader

ROOT: Final = Path(__file__).parents[1]
BATCH: Final = 32
MANY: Final = 1_000_000
TARGETS: Final = {
    "store": 50.0,
    "loader": 50.0,
    "resume": 10.0,
    "resume at 1,000,000 rows": 10.0,
}
"""Milliseconds."""


def main(argv: list[str]) -> int:
    """Measure, print a table, and publish ``results/opening.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks opening")
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--shard-rows", type=int, default=64)
    parser.add_argument("--taps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dir", type=Path, default=None, help="where the store is written")
    parser.add_argument("--child", choices=("store", "loader"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        print(json.dumps(CHILDREN[options.child](options.dir)))
        return 0
    # They load torch, which the process that opens a store alone must not wait for.
    from benchmarks.record import publish
    from benchmarks.stores import random_plan, random_planes, random_store, scratch

    spec = FeatureSpec("toy", tuple(range(options.taps)), TokenGrid(2, 2, prefix=1), 8)
    with scratch(options.dir) as folder:
        plan = random_plan(spec, options.shards * options.shard_rows, options.shard_rows)
        path = random_store(folder / "store.zarr", plan, random_planes(spec, 2 * BATCH))
        times: dict[str, list[float]] = {}
        for _ in range(options.rounds):
            for child in CHILDREN:
                for name, value in in_child(child, path).items():
                    times.setdefault(name, []).append(value)
    rows = report(times)
    hits = {name: rows[name]["best"] <= target for name, target in TARGETS.items()}
    publish("opening", argv, {"milliseconds": rows, "hits": hits})
    return 0


def in_child(child: str, path: Path) -> dict[str, float]:
    """Run one measurement in a process of its own."""
    command = [sys.executable, "-m", "benchmarks", "opening", "--child", child, "--dir", str(path)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def report(times: dict[str, list[float]]) -> dict[str, Any]:
    """The table, and the same as JSON values."""
    from benchmarks.record import note
    from benchmarks.rounds import outcome

    rows = {}
    for name, values in times.items():
        best, median = min(values), statistics.median(values)
        target = TARGETS.get(name)
        limit = f"  target {target:g}: {outcome(hit=best <= target)}" if target else ""
        note(f"{name:28} best {best:8.2f} ms  median {median:8.2f} ms{limit}")
        rows[name] = {"best": round(best, 3), "median": round(median, 3), "target": target}
    return rows


class Clock:
    """Milliseconds since it was made, and since its last look."""

    def __init__(self) -> None:
        self._begun = self._last = time.perf_counter()

    def lap(self) -> float:
        """Milliseconds since the last lap."""
        now = time.perf_counter()
        self._last, before = now, self._last
        return (now - before) * 1e3

    def total(self) -> float:
        """Milliseconds since the beginning."""
        return (time.perf_counter() - self._begun) * 1e3


def store_child(path: Path) -> dict[str, float]:
    """Open and read a batch with the store alone."""
    import numpy.random  # noqa: F401 -- an import, not a part of opening

    from losa.store import open_store
    from losa.store.order import EpochOrder

    clock, found = Clock(), {}
    store = open_store(path)
    split = store.split("train")
    found["of it: open"] = clock.lap()
    rows = np.flatnonzero(split.status == 1)
    assert len(split.labels) == len(rows)
    found["of it: labels and status"] = clock.lap()
    batch = EpochOrder(rows, 0, 0).part(0, BATCH)
    found["of it: order"] = clock.lap()
    taps, tokens, channels = store.spec.shape
    out = np.empty((taps, len(batch), tokens, channels), split.raw_dtype)
    clock.lap()
    split.read_into(batch, store.spec.taps, out)
    found["of it: batch"] = clock.lap()
    total = clock.total()
    assert "zarr" not in sys.modules
    assert "torch" not in sys.modules
    return {"store": total, **found}


def loader_child(path: Path) -> dict[str, float]:
    """Open and read a batch as training does, then resume."""
    import torch

    from losa.adapt.loader import FeatureLoader
    from losa.adapt.ring import Ring, RingOptions
    from losa.store import open_store

    options = RingOptions(BATCH, torch.device("cpu"))
    next(iter(torch.empty(2).add(1)))  # torch's own first use
    clock = Clock()
    store = open_store(path)
    split = store.split("train")
    rows = np.flatnonzero(split.status == 1)
    with Ring(store.spec, options) as ring:
        loader = FeatureLoader(split, rows, ring, shuffle=True)
        next(loader.epoch(0))
        found = {"loader": clock.total(), "resume": resumed(loader)}
        many = FeatureLoader(Nothing(), np.arange(MANY), ring, shuffle=True)
        found["resume at 1,000,000 rows"] = resumed(many)
    assert "zarr" not in sys.modules
    return found


def resumed(loader: FeatureLoader) -> float:
    """Milliseconds from asking for the middle of an epoch to its first batch."""
    started = time.perf_counter()
    next(loader.epoch(1, loader.steps // 2))
    return (time.perf_counter() - started) * 1e3


class Nothing:
    """A split of a million rows that costs nothing to read."""

    rows = MANY
    labels = np.zeros(MANY, np.int32)
    status = np.ones(MANY, np.uint8)
    source_index = np.arange(MANY)
    views = np.zeros(MANY, np.uint8)
    samples = ()
    raw_dtype: np.dtype[np.generic] = np.dtype(np.float16)

    def read_into(self, *_: object) -> None:
        """Leave the buffer as it is."""

    def follow(self, *_: object) -> None:
        """Nothing is fetched ahead."""


CHILDREN: Final = {"store": store_child, "loader": loader_child}
