"""Stores as tools of zarr leave them: the same arrays, encoded otherwise."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import zarr
from zarr.codecs import ZstdCodec

ROWS = 3
"""Rows of a chunk: no divisor of a shard's."""


def recompressed(source: Path, target: Path, only: str = "", **encoding: Any) -> Path:
    """Copy a store with zstd in all arrays below ``only``; ``.losa`` is copied as it is."""
    shutil.copytree(source, target)
    for document in sorted((source / only).rglob("zarr.json")):
        name = document.parent.relative_to(source).as_posix()
        node = zarr.open(store=str(source), path="" if name == "." else name, mode="r")
        if isinstance(node, zarr.Array):
            shutil.rmtree(target / name)
            rewritten(node, target, name, **encoding)
    return target


def rewritten(node: Any, target: Path, name: str, **encoding: Any) -> None:
    """Write an array again, in chunks of three rows."""
    chunks = (min(ROWS, node.shape[0]), *node.shape[1:])
    wanted = {"chunks": chunks, "compressors": ZstdCodec(level=1), **encoding}
    array = zarr.create_array(
        store=str(target), name=name, shape=node.shape, dtype=node.dtype, **wanted
    )
    array[:] = node[:]


def chunk_of(path: Path, name: str, row: int) -> Path:
    """The file that holds a row of an array, whoever wrote it."""
    raw = path / name / f"c.{row // 8}.0.0"
    return raw if raw.exists() else path / name / "c" / str(row // ROWS) / "0" / "0"
