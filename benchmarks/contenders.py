"""What stands beside losa in a table: other ways to keep and read the same records.

Each gives the pieces of work that fill a batch's ``[k b l d]`` buffer, for a pool of threads to
run. Rows are an array (a shuffled batch) or a slice (a sequential one), and every contender takes
the better way it has for either.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import zarr

from losa.store import SplitReader, layout

Rows = np.ndarray | slice
Piece = Callable[[], None]
Reads = Callable[[Rows, np.ndarray], Sequence[Piece]]
Fill = Callable[[Rows, int, np.ndarray], None]
"""Rows, the tap's number, and where its ``[b l d]`` belong."""


def epoch_seconds(
    reads: Reads, batches: Iterable[Rows], buffers: np.ndarray, pool: ThreadPoolExecutor
) -> float:
    """Wall seconds to fill the reused buffers with every batch."""
    started = time.perf_counter()
    for number, rows in enumerate(batches):
        out = buffers[number % len(buffers)][:, : batch_size(rows)]
        for piece in [pool.submit(piece) for piece in reads(rows, out)]:
            piece.result()
    return time.perf_counter() - started


def check(name: str, reads: Reads, rows: Rows, planes: np.ndarray) -> None:
    """Refuse a contender that reads something else than what was written."""
    out = np.zeros((len(planes), batch_size(rows), *planes.shape[2:]), planes.dtype)
    for piece in reads(rows, out):
        piece()
    if not np.array_equal(out.view(np.uint16), planes[:, rows].view(np.uint16)):
        raise AssertionError(f"{name} read other bytes than were written")


def batch_size(rows: Rows) -> int:
    """How many rows there are."""
    return int(rows.stop - rows.start) if isinstance(rows, slice) else len(rows)


def by_tap(fill: Fill) -> Reads:
    """One piece of work a tap, as losa's ring cuts it."""
    return lambda rows, out: [partial(fill, rows, tap, out[tap]) for tap in range(len(out))]


def losa(reader: SplitReader) -> Reads:
    """The store's reader."""
    taps = reader.spec.taps

    def fill(rows: Rows, tap: int, out: np.ndarray) -> None:
        wanted = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        reader.read_into(wanted, (taps[tap],), out[None])

    return by_tap(fill)


def memory(planes: np.ndarray) -> Reads:
    """A copy from an array ``[k n l d]``: in RAM it is the limit, in a memmap a contender."""

    def fill(rows: Rows, tap: int, out: np.ndarray) -> None:
        if isinstance(rows, slice):
            np.copyto(out, planes[tap][rows])
        else:
            np.take(planes[tap], rows, axis=0, out=out, mode="clip")

    return by_tap(fill)


def memmap(path: Path, shape: tuple[int, ...]) -> Reads:
    """``np.memmap`` of one raw file, indexed as everybody does."""
    mapped = np.memmap(path, np.float16, "r", shape=shape)

    def fill(rows: Rows, tap: int, out: np.ndarray) -> None:
        out[:] = mapped[tap][rows]

    return by_tap(fill)


def write_raw(path: Path, planes: np.ndarray) -> Path:
    """One file of nothing but the records."""
    planes.tofile(path)
    return path


def hdf5(path: Path) -> Reads:
    """h5py, one chunk a record."""
    file = h5py.File(path, "r")
    arrays = [file[name] for name in sorted(file)]

    def fill(rows: Rows, tap: int, out: np.ndarray) -> None:
        if isinstance(rows, slice):
            arrays[tap].read_direct(out, rows)
            return
        for position, row in enumerate(rows.tolist()):
            arrays[tap].read_direct(out, np.s_[row], np.s_[position])

    return by_tap(fill)


def write_hdf5(path: Path, planes: np.ndarray) -> Path:
    """One HDF5 file, one data set a tap, one chunk a record."""
    with h5py.File(path, "w", libver="latest") as file:
        for tap, plane in enumerate(planes):
            file.create_dataset(f"tap{tap:02d}", data=plane, chunks=(1, *plane.shape[1:]))
    return path


def saved(folder: Path, threads: int) -> Reads:
    """``torch.load`` of one file a sample, all its taps in it; the batch is cut among threads."""

    def load(rows: Sequence[int], first: int, out: np.ndarray) -> None:
        for position, row in enumerate(rows, first):
            record = torch.load(folder / f"{row}.pt", weights_only=True)
            torch.from_numpy(out[:, position]).copy_(record)

    def reads(rows: Rows, out: np.ndarray) -> list[Piece]:
        wanted = list(range(rows.start, rows.stop)) if isinstance(rows, slice) else rows.tolist()
        step = -(-len(wanted) // threads)
        return [
            partial(load, wanted[first : first + step], first, out)
            for first in range(0, len(wanted), step)
        ]

    return reads


def write_saved(folder: Path, planes: np.ndarray) -> Path:
    """``torch.save`` of every sample."""
    folder.mkdir()
    for row in range(planes.shape[1]):
        torch.save(torch.from_numpy(planes[:, row].copy()), folder / f"{row}.pt")
    return folder


def zarr_python(path: Path, taps: Sequence[int]) -> Reads:
    """zarr-python's orthogonal indexing of the store's own files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # consolidated metadata of v3 is not in the spec yet
        group = zarr.open_group(str(path), mode="r")
        arrays = [group[layout.tokens_path("train", tap)] for tap in taps]

    def fill(rows: Rows, tap: int, out: np.ndarray) -> None:
        array = arrays[tap]
        assert isinstance(array, zarr.Array)
        out[:] = array.oindex[rows]

    return by_tap(fill)


def has_tensorstore() -> bool:
    """Whether the ``bench`` extra is installed."""
    return importlib.util.find_spec("tensorstore") is not None


def tensorstore(path: Path, taps: Sequence[int], threads: int) -> Reads:
    """The zarr3 driver of tensorstore on the store's own files, its index cached."""
    arrays = [open_tensorstore(path / layout.tokens_path("train", tap), threads) for tap in taps]

    def fill(rows: Rows, tap: int, out: np.ndarray) -> None:
        out[:] = arrays[tap][rows].read().result()

    return by_tap(fill)


def open_tensorstore(path: Path, threads: int, **options: Any) -> Any:
    """A zarr3 array in tensorstore, with as many threads as the others have."""
    import tensorstore as ts

    context = {
        "data_copy_concurrency": {"limit": threads},
        "file_io_concurrency": {"limit": threads},
        "cache_pool": {"total_bytes_limit": 64 * 2**20},
    }
    store = {"driver": "file", "path": f"{path}/"}
    spec = {"driver": "zarr3", "kvstore": store, "recheck_cached_data": False}
    return ts.open(spec | options, context=ts.Context(context)).result()
