"""M3: how fast is a store written, and what does surviving a power cut cost?

Question: what do checksums, indexes, renames, commit records and syncs cost against bare
``os.write`` of the same bytes, and what do the syncs alone cost an extraction?
Method: random planes of ViT-B/16's shape in memory are written batch by batch into a new folder,
which is removed after every round; rounds are interleaved. The bare writer writes, with the same
threads, files of the very sizes of the store's, and calls ``fsync`` as often as losa did in a
counted run. Contenders get the same planes: sharded zarr through zarr-python and tensorstore, h5py
with a chunk a record, ``np.save`` of every sample; none of these ever syncs.
Ratio against: bare writes with the same syncs (target >= 0.85). The cost of durability is (full -
none) / none of the writing alone, and its share of an extraction whose forward takes
``--forward-ms`` a row and overlaps with nothing (target <= 3 % at objects of 64 MiB or more; of
smaller ones nothing is asked). The best rounds decide. Beside them stand the medians, and the
median of what losa and the other one took in the same round (``paired``), which a busy machine
disturbs least.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import numpy as np

from benchmarks import peers, rounds
from benchmarks.record import note, publish
from benchmarks.stores import BATCH, VIT_B, begin, fill, random_plan, random_planes, scratch
from losa.store import Plan

FULL, NONE = "losa, --durability full", "losa, --durability none"
BARE_FULL, BARE_NONE = "bare writes, same syncs", "bare writes, no sync"
LEAST_RATIO: Final = 0.85
MOST_COST: Final = 0.03
LARGE_OBJECT: Final = 64 * 2**20
WRITE_THREADS: Final = 4
"""As many as losa's writer has, one a tap."""


def main(argv: list[str]) -> int:
    """Measure, print a table, and publish ``results/writing.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks writing")
    parser.add_argument("--rows", type=int, default=768, help="rows to write (1.2 MB each)")
    parser.add_argument("--shard-rows", type=int, default=256, help="256 make objects of 77 MB")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--forward-ms", default="1,10,100", help="of a row; several by commas")
    parser.add_argument("--dir", type=Path, default=None, help="a folder on a disk, no tmpfs")
    options = parser.parse_args(argv)
    planes = random_planes(VIT_B, options.rows)
    with scratch(options.dir) as folder:
        writing = Writing(folder, planes, options.shard_rows)
        times = rounds.in_turns(writing.contenders(), options.rounds)
    forward = [float(text) for text in options.forward_ms.split(",")]
    result = report(times, planes.nbytes, options.rows, forward)
    size = min(options.rows, options.shard_rows) * VIT_B.record_bytes
    facts = {"bytes": planes.nbytes, "object_bytes": size, "syncs": writing.syncs}
    publish("writing", argv, facts | result | {"hits": hits(result, size)})
    return 0


class Writing:
    """Writes of the same planes into new folders below ``folder``."""

    def __init__(self, folder: Path, planes: np.ndarray, shard_rows: int) -> None:
        self._folder = folder
        self._planes = planes
        self._plan: Plan = random_plan(VIT_B, planes.shape[1], shard_rows)
        path = folder / "counted"
        begin(path, self._plan)
        before = set(sizes(path))
        with counted_syncs() as syncs:
            fill(path, planes, durable=True)
        self.syncs = len(syncs)
        new = {name: size for name, size in sizes(path).items() if name not in before}
        self.token_files = [size for name, size in new.items() if "/tokens/" in name]
        self.small = [size for name, size in new.items() if "/tokens/" not in name]
        shutil.rmtree(path)

    def contenders(self) -> dict[str, Callable[[], float]]:
        """Each writes everything once and returns its seconds."""
        shard_rows = self._plan.shard_rows
        found = {
            FULL: lambda: self._losa(durable=True),
            BARE_FULL: lambda: self._bare(self.syncs),
            NONE: lambda: self._losa(durable=False),
            BARE_NONE: lambda: self._bare(0),
        }
        for name, write in peers.writers(shard_rows).items():
            found[name] = partial(self._seconds, write)
        return found

    def _seconds(self, write: Callable[[Path, np.ndarray], Any]) -> float:
        path = self._folder / "round"
        os.sync()  # nobody pays for what another one has left to the kernel
        started = time.perf_counter()
        write(path, self._planes)
        seconds = time.perf_counter() - started
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        return seconds

    def _losa(self, *, durable: bool) -> float:
        path = self._folder / "round"
        begin(path, self._plan)
        os.sync()  # nobody pays for what another one has left to the kernel
        started = time.perf_counter()
        fill(path, self._planes, durable=durable)
        seconds = time.perf_counter() - started
        shutil.rmtree(path)
        return seconds

    def _bare(self, syncs: int) -> float:
        return self._seconds(lambda path, planes: self.bare_write(path, planes, syncs))

    def bare_write(self, path: Path, planes: np.ndarray, syncs: int) -> None:
        """Files of the store's sizes; what is left of ``syncs`` goes to the small ones."""
        path.mkdir()
        with ThreadPoolExecutor(WRITE_THREADS) as pool:
            for first in range(0, planes.shape[1], self._plan.shard_rows):
                rows = planes[:, first : first + self._plan.shard_rows]
                names = [path / f"{first}-{tap}" for tap in range(len(rows))]
                list(
                    pool.map(lambda name, tap: write_plane(name, tap, sync=syncs > 0), names, rows)
                )
        left = syncs - len(self.token_files)
        for number, size in enumerate(self.small):
            share = left * (number + 1) // len(self.small) - left * number // len(self.small)
            write_small(path / f"small-{number}", size, share)


def write_plane(path: Path, plane: np.ndarray, *, sync: bool) -> None:
    """A token file: a batch a call, then its index and at most one sync."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        for first in range(0, len(plane), BATCH):
            write_whole(handle, plane[first : first + BATCH].view(np.uint8).reshape(-1).data)
        write_whole(handle, memoryview(bytes(16 * len(plane) + 4)))
        if sync:
            os.fsync(handle)
    finally:
        os.close(handle)


def write_small(path: Path, size: int, syncs: int) -> None:
    """A small file: synced once itself, and as often as is left its folder."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        write_whole(handle, memoryview(bytes(size)))
        for number in range(syncs):
            os.fsync(folder if number else handle)
    finally:
        os.close(handle)
        os.close(folder)


def write_whole(handle: int, data: memoryview) -> None:
    """All of ``data``."""
    while data:
        data = data[os.write(handle, data) :]


def sizes(path: Path) -> dict[str, int]:
    """Bytes of every file below a folder."""
    return {
        file.relative_to(path).as_posix(): file.stat().st_size
        for file in path.rglob("*")
        if file.is_file()
    }


@contextmanager
def counted_syncs() -> Iterator[list[int]]:
    """Every call of ``os.fsync`` and ``os.fdatasync`` meanwhile."""
    calls: list[int] = []

    def counting(call: Callable[[Any], None]) -> Callable[[Any], None]:
        def counted(handle: int) -> None:
            calls.append(handle)
            call(handle)

        return counted

    with patch("os.fsync", counting(os.fsync)), patch("os.fdatasync", counting(os.fdatasync)):
        yield calls


def report(times: rounds.Times, nbytes: int, count: int, forward_ms: list[float]) -> dict[str, Any]:
    """The table, the ratios, and what durability costs."""
    note(f"{nbytes / 1e6:.0f} MB written")
    seconds = rounds.table(times, nbytes)
    extractions = {f"of_extraction_at_{each:g}_ms": count * each / 1e3 for each in forward_ms}
    cost = durability(times, {"of_writing": 0.0, **extractions})
    for kind, shares in cost.items():
        note(f"durability ({kind}): " + ", ".join(f"{k} {v:.1%}" for k, v in shares.items()))
    same = rounds.ratio(times, BARE_FULL, FULL)
    bare = rounds.ratio(times, BARE_NONE, NONE)
    unsynced = "of bare writes, none synced"
    return {
        "seconds": seconds,
        "losa_to_bare": rounds.verdict("M3", same, "of bare writes, same syncs", LEAST_RATIO),
        "losa_to_bare_unsynced": rounds.verdict("M3", bare, unsynced, LEAST_RATIO),
        "durability": cost,
    }


def durability(times: rounds.Times, besides: dict[str, float]) -> dict[str, dict[str, float]]:
    """What syncing adds, as a share of writing and of the seconds that go by besides it.

    Example:
        >>> durability({FULL: [2.0, 3.0, 4.0], NONE: [1.0, 2.0, 2.0]}, {"all": 0.0})
        {'best': {'all': 1.0}, 'median': {'all': 0.5}, 'paired': {'all': 1.0}}
    """
    full, none = times[FULL], times[NONE]
    pairs = {
        "best": [(min(full), min(none))],
        "median": [(statistics.median(full), statistics.median(none))],
        "paired": list(zip(full, none, strict=True)),
    }
    return {
        kind: {
            what: round(statistics.median((f - n) / (n + other) for f, n in found), 4)
            for what, other in besides.items()
        }
        for kind, found in pairs.items()
    }


def hits(result: dict[str, Any], object_bytes: int) -> dict[str, bool | None]:
    """Whether each target is hit; none is set for the syncs of small objects."""
    is_large = object_bytes >= LARGE_OBJECT
    shares = result["durability"]["best"].items()
    cost = {
        f"durability_{what}": share <= MOST_COST if is_large else None
        for what, share in shares
        if what != "of_writing"
    }
    ratios = ("losa_to_bare", "losa_to_bare_unsynced")
    return {**{name: result[name]["hit"] for name in ratios}, **cost}
