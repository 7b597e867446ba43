"""How others write the planes of a data set, batch by batch, for the table of M3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import zarr

from benchmarks.contenders import has_tensorstore, open_tensorstore
from benchmarks.stores import BATCH

Write = Callable[[Path, np.ndarray], None]
"""Where, and the planes ``[k n l d]``."""


def writers(shard_rows: int) -> dict[str, Write]:
    """Every contender that is installed; shards are of ``shard_rows`` where it knows shards."""
    found: dict[str, Write] = {
        "zarr-python, sharded": lambda path, planes: write_zarr(path, planes, shard_rows),
        "h5py, a chunk a record": write_hdf5,
        "np.save, a file a sample": write_files,
    }
    if has_tensorstore():
        found["tensorstore, sharded"] = lambda path, planes: write_tensorstore(
            path, planes, shard_rows
        )
    return found


def spans(rows: int, step: int) -> Iterator[slice]:
    """Slices of at most ``step`` rows."""
    return (slice(first, min(rows, first + step)) for first in range(0, rows, step))


def write_zarr(path: Path, planes: np.ndarray, shard_rows: int) -> None:
    """zarr-python; a whole shard a call, because it would rewrite the shard for every batch."""
    group = zarr.open_group(str(path), mode="w")
    for tap, plane in enumerate(planes):
        array = group.create_array(
            f"tap{tap:02d}",
            shape=plane.shape,
            dtype=plane.dtype,
            chunks=(1, *plane.shape[1:]),
            shards=(shard_rows, *plane.shape[1:]),
            compressors=None,
        )
        for span in spans(len(plane), shard_rows):
            array[span] = plane[span]


def write_hdf5(path: Path, planes: np.ndarray) -> None:
    """h5py, a batch a call."""
    with h5py.File(path, "w", libver="latest") as file:
        shape = planes.shape[1:]
        arrays = [
            file.create_dataset(f"tap{tap:02d}", shape, planes.dtype, chunks=(1, *shape[1:]))
            for tap in range(len(planes))
        ]
        for span in spans(shape[0], BATCH):
            for array, plane in zip(arrays, planes, strict=True):
                array.write_direct(plane, span, span)


def write_files(path: Path, planes: np.ndarray) -> None:
    """One file a sample."""
    path.mkdir()
    for row in range(planes.shape[1]):
        np.save(path / f"{row}.npy", planes[:, row], allow_pickle=False)


def write_tensorstore(path: Path, planes: np.ndarray, shard_rows: int) -> None:
    """The zarr3 driver of tensorstore, a whole shard a call."""
    for tap, plane in enumerate(planes):
        inner = {
            "chunk_shape": [1, *plane.shape[1:]],
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        }
        metadata = {
            "shape": list(plane.shape),
            "data_type": plane.dtype.name,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [shard_rows, *plane.shape[1:]]},
            },
            "codecs": [{"name": "sharding_indexed", "configuration": inner}],
        }
        array = open_tensorstore(path / f"tap{tap:02d}", 4, create=True, metadata=metadata)
        for span in spans(len(plane), shard_rows):
            array[span].write(plane[span]).result()
