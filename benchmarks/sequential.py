"""M2: how fast is an epoch read in the store's own order, warm and off the disk?

Question: what does reading every row once, in order, cost against copying the same bytes out of an
np.memmap when they are in the page cache, and against a plain ``preadv`` loop over the same files
when they are not?
Method: a float16 store shaped like ViT-B/16's tokens; each contender fills the same reused
``[k b l d]`` buffers with the same number of threads, in interleaved rounds. Before a cold round
every file is written back (``fdatasync``) and dropped from the page cache
(``posix_fadvise(DONTNEED)``), and every reader is opened anew, because pages that a mapping holds
stay where they are; how much of a cold round came off the disk is counted by the kernel, a round
below 95 % is repeated and never counts, and the shares are listed. Cold rounds need ``--dir`` on a
disk: in a tmpfs nothing is ever cold. Where no round can be cold, ``cold`` is null and
``cold_reason`` says why.
Ratio against: memmap (warm, target >= 0.95) and preadv (cold, target >= 0.9). Warm, checksums were
compared in a first pass; cold, ``losa`` compares them, as a first epoch does, and ``losa, compared
before`` is a later epoch of a store larger than memory.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import contenders, rounds
from benchmarks.contenders import Reads, Rows, epoch_seconds
from benchmarks.record import note, publish
from benchmarks.stores import (
    BATCH,
    VIT_B,
    aligned,
    random_plan,
    random_planes,
    random_store,
    scratch,
)
from losa.store import layout, open_store

MEMMAP: Final = "np.memmap"
PREADV: Final = "preadv"
IO: Final = Path("/proc/self/io")
MOUNTS: Final = Path("/proc/self/mountinfo")
IN_MEMORY: Final = ("tmpfs", "ramfs")
TRIES: Final = 3
COLD_SHARE: Final = 0.95
"""Share of the bytes that must have come off the disk for a round to count as cold."""


class NotColdError(Exception):
    """What was to come off the disk came out of memory: why."""


def main(argv: list[str]) -> int:
    """Measure warm and cold, print two tables, and publish ``results/sequential.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks sequential")
    parser.add_argument("--rows", type=int, default=1024, help="rows of the store (1.2 MB each)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dir", type=Path, default=None, help="a folder on a disk, no tmpfs")
    options = parser.parse_args(argv)
    with scratch(options.dir) as folder:
        planes = random_planes(VIT_B, options.rows)
        random_store(folder / "store.zarr", random_plan(VIT_B, options.rows), planes)
        contenders.write_raw(folder / "raw", planes)
        contenders.write_hdf5(folder / "peer.h5", planes)
        contenders.write_saved(folder / "saved", planes)
        with ThreadPoolExecutor(options.threads) as pool:
            bench = Epochs(folder, planes, pool, options.threads)
            warm = bench.warm(options.rounds)
            result = {"warm": warm, **cold_or_why(bench, options.rounds)}
    result["hits"] = hits(result)
    publish("sequential", argv, {"threads": options.threads, "bytes": planes.nbytes, **result})
    return 0


def cold_or_why(bench: Epochs, count: int) -> dict[str, Any]:
    """The cold rounds; without them, why there are none."""
    try:
        return {"cold": bench.cold(count)}
    except NotColdError as error:
        note(f"M2: no cold rounds: {error}")
        return {"cold": None, "cold_reason": str(error)}


def hits(result: dict[str, Any]) -> dict[str, bool | None]:
    """Whether each target is hit; null where nothing could be measured."""
    cold = result["cold"] or {}
    return {
        "warm": result["warm"]["losa_to_memmap"]["hit"],
        "cold": cold["losa_to_preadv"]["hit"] if cold else None,
        "cold, compared before": cold["compared_before_to_preadv"]["hit"] if cold else None,
    }


class Epochs:
    """Epochs over the files of a folder, warm or cold."""

    def __init__(
        self, folder: Path, planes: np.ndarray, pool: ThreadPoolExecutor, threads: int
    ) -> None:
        self._folder = folder
        self._planes = planes
        self._pool = pool
        self._threads = threads
        self._buffers = aligned((4, len(planes), BATCH, *planes.shape[2:]))
        count = planes.shape[1]
        self._batches = [
            slice(first, min(count, first + BATCH)) for first in range(0, count, BATCH)
        ]
        self._from_disk: dict[str, list[float]] = {}

    def warm(self, count: int) -> dict[str, object]:
        """Everything lies in the page cache, and losa's checksums were compared."""
        runs: dict[str, Callable[[], float]] = {}
        for name, make in self._contenders().items():
            reads = make()
            for rows in self._batches[-2:]:
                contenders.check(name, reads, rows, self._planes)
            self._seconds(reads)
            runs[name] = partial(self._seconds, reads)
        times = rounds.in_turns(runs, count)
        note(f"warm, {self._planes.nbytes / 1e6:.0f} MB, {self._threads} threads")
        found = rounds.ratio(times, MEMMAP, "losa")
        return {
            "seconds": rounds.table(times, self._planes.nbytes),
            "losa_to_memmap": rounds.verdict("M2", found, "of an np.memmap copy, warm", 0.95),
        }

    def cold(self, count: int) -> dict[str, object]:
        """Nothing lies in the page cache, and every reader is new.

        Raises:
            NotColdError: files that lie in memory, or a round that came out of the page cache.
        """
        kind = file_system(self._folder)
        if kind in IN_MEMORY:
            raise NotColdError(
                f"--dir is a {kind}, where nothing is ever cold; use a folder on a disk"
            )
        runs = {
            name: partial(self._from_cold, name, make) for name, make in self._contenders().items()
        }
        times = rounds.in_turns(runs, count)
        note(f"cold, {self._planes.nbytes / 1e6:.0f} MB, {self._threads} threads")
        return {
            "seconds": rounds.table(times, self._planes.nbytes),
            "share_from_disk": self._from_disk,
            "losa_to_preadv": rounds.verdict(
                "M2", rounds.ratio(times, PREADV, "losa"), "of plain preadv, cold", 0.9
            ),
            "compared_before_to_preadv": rounds.verdict(
                "M2", rounds.ratio(times, PREADV, "losa, compared before"), "without crc", 0.9
            ),
        }

    def _contenders(self) -> dict[str, Callable[[], Reads]]:
        path, folder, taps = self._folder / "store.zarr", self._folder, VIT_B.taps
        shape = self._planes.shape
        found: dict[str, Callable[[], Reads]] = {
            "losa": lambda: contenders.losa(open_store(path).split("train")),
            "losa, compared before": lambda: contenders.losa(
                open_store(path, verify="never").split("train")
            ),
            MEMMAP: lambda: contenders.memory(
                np.memmap(folder / "raw", np.float16, "r", shape=shape)
            ),
            PREADV: lambda: preadv(path, shape[1]),
            "h5py, a chunk a record": lambda: contenders.hdf5(folder / "peer.h5"),
            "torch.load, a file a sample": lambda: contenders.saved(
                folder / "saved", self._threads
            ),
        }
        if contenders.has_tensorstore():
            found["tensorstore"] = lambda: contenders.tensorstore(path, taps, self._threads)
        return found

    def _seconds(self, reads: Reads) -> float:
        return epoch_seconds(reads, self._batches, self._buffers, self._pool)

    def _from_cold(self, name: str, make: Callable[[], Reads]) -> float:
        """Seconds of a round; one that came out of the page cache after all is not counted."""
        tried = []
        for _ in range(TRIES):
            drop_cache(self._folder)
            before = read_bytes()
            seconds = self._seconds(make())
            share = (read_bytes() - before) / self._planes.nbytes
            tried.append(f"{share:.0%}")
            if share >= COLD_SHARE:
                self._from_disk.setdefault(name, []).append(round(share, 3))
                return seconds
        found = f"{', '.join(tried)} came off the disk in {TRIES} tries"
        raise NotColdError(
            f"{name}: {found}, less than {COLD_SHARE:.0%}; use a --dir on a local disk"
        )


def preadv(path: Path, count: int) -> Reads:
    """The plainest reader of the store's own files: they are open, and every record is one call."""
    plan = open_store(path).plan
    size, held = plan.spec.record_bytes, plan.shard_rows
    shards = range(layout.shard_count(count, held))
    files = [
        [Descriptor(path / layout.tokens_object("train", tap, shard)) for shard in shards]
        for tap in plan.spec.taps
    ]

    def fill(rows: Rows, tap: int, out: np.ndarray) -> None:
        assert isinstance(rows, slice)
        for position, row in enumerate(range(rows.start, rows.stop)):
            shard, slot = divmod(row, held)
            record = out[position].view(np.uint8)
            got = os.preadv(files[tap][shard].number, [record], slot * size)
            assert got == size

    return contenders.by_tap(fill)


class Descriptor:
    """An open file that closes with its last user."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        os.close(self.number)


def drop_cache(folder: Path) -> None:
    """Write every file below a folder back, and drop it from the page cache."""
    for path in all_files(folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fdatasync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def all_files(folder: Path) -> Sequence[Path]:
    """Every file below a folder."""
    return [path for path in folder.rglob("*") if path.is_file()]


def file_system(folder: Path) -> str:
    """Kind of a folder's file system, such as ``ext4``; ``unknown`` if it is not listed."""
    device = folder.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in MOUNTS.read_text().splitlines():
        fields = line.split()
        if fields[2] == number:
            return fields[fields.index("-") + 1]
    return "unknown"


def read_bytes() -> int:
    """Bytes that this process has had fetched from a disk so far."""
    lines = IO.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))
