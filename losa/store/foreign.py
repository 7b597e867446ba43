"""Stores whose arrays are zarr's but not raw records: recompressed, cut otherwise, or far away.

zarr-python reads them. What it may be asked to do is looked at first: an array must be the plan's,
of codecs that are known, in chunks no larger than a shard. What it has read must be what the seal,
a commit record or a checksum vouches for, at every read: zarr gives zeros for a chunk that is gone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Int64, Shaped

from losa.errors import LosaError, StoreError
from losa.store import layout
from losa.store.order import EpochOrder
from losa.store.plan import Plan
from losa.store.records import Parts
from losa.store.sealed import Read
from losa.store.skeleton import metadata_documents

CODECS: Final = frozenset(
    ["sharding_indexed", "bytes", "crc32c", "transpose", "zstd", "blosc", "gzip"]
)
"""Codecs of zarr that an array may have; none of them reads anything but the chunk."""

_ENCODING: Final = ("shape", "data_type", "chunk_grid", "chunk_key_encoding", "codecs")
_TODO: Final = "copy the store again, or extract it again"


def is_raw(data: bytes, planned: Mapping[str, Any]) -> bool:
    """Whether an array's ``zarr.json`` says that it lies as planned: as losa writes it.

    What is no such document says nothing; raw files then speak for themselves.

    Example:
        >>> is_raw(b'{"node_type": "array", "shape": [2]}', {"shape": [3]}), is_raw(b"{", {})
        (False, True)
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return True
    if not isinstance(found, dict) or found.get("node_type") != "array":
        return True
    return all(found.get(name) == planned.get(name) for name in _ENCODING)


def has_foreign_records(read: Read, plan: Plan) -> bool:
    """Whether any array of tokens or scales lies otherwise than losa writes it."""
    planned = metadata_documents(plan)
    for name in filter(_is_payload, planned):
        try:
            data = read(f"{name}/zarr.json")
        except LosaError:
            continue  # raw shards are read without it
        if not is_raw(data, planned[name]):
            return True
    return False


class ForeignArrays:
    """The arrays of a store through zarr-python; safe to use from several threads at once.

    Args:
        path: what errors call the store.
        plan: what the arrays must be.
        read: gives a file's content.
        objects: the same store as an object of zarr-python.
    """

    def __init__(self, path: Path, plan: Plan, read: Read, objects: Any) -> None:
        self._path = path
        self._planned = metadata_documents(plan)
        self._read = read
        self._objects = objects
        self._arrays: dict[str, Any] = {}
        self._is_raw: dict[str, bool] = {}

    def rows(self, name: str, rows: Int64[np.ndarray, "b"]) -> Shaped[np.ndarray, "b ..."]:
        """Some rows of an array, in the order asked, as the plan's dtype.

        Raises:
            StoreError: the array is not the plan's, or cannot be read; it is named.
        """
        array, dtype = self._array(name), np.dtype(self._planned[name]["data_type"])
        with named(self._path / name):
            return np.ascontiguousarray(array.oindex[rows], dtype=dtype.newbyteorder("<"))

    def read(self, name: str) -> bytes:
        """A file's content as losa writes it, whatever the encoding of the array it is a chunk of.

        Raises:
            StoreError: it is missing, or cannot be read.
        """
        node, _, chunk = name.rpartition("/")
        planned = self._planned.get(node)
        if planned is None or chunk == "zarr.json":
            return self._read(name)
        if node not in self._is_raw:
            self._is_raw[node] = is_raw(self._read(f"{node}/zarr.json"), planned)
        if self._is_raw[node]:
            return self._read(name)
        size = planned["chunk_grid"]["configuration"]["chunk_shape"][0]
        first = int(chunk.split(".")[1]) * size
        stop = min(first + size, planned["shape"][0])
        held = self.rows(node, np.arange(first, stop))
        return held.tobytes() + bytes((first + size - stop) * held.itemsize)

    def _array(self, name: str) -> Any:
        if name not in self._arrays:
            import zarr

            planned, path = self._planned[name], self._path / name
            largest = prod(planned["chunk_grid"]["configuration"]["chunk_shape"])
            if not _is_payload(name):
                largest = max(largest, prod(planned["shape"]))  # small as a whole
            data = self._read(f"{name}/zarr.json")
            with named(path):
                check_document(path, json.loads(data), planned, largest)
                found = zarr.open_array(self._objects, path=name, mode="r", zarr_format=3)
            self._arrays[name] = found
        return self._arrays[name]


class ForeignRecords:
    """Records of a split, read as rows of zarr arrays."""

    is_doubtful = True

    def __init__(self, arrays: ForeignArrays, split: str) -> None:
        self._arrays = arrays
        self._split = split

    def copy(self, tap: int, rows: Int64[np.ndarray, "b"], parts: Parts, *, is_seen: bool) -> None:
        """Copy the records of ``rows`` at a tap; every read is a first one.

        Raises:
            StoreError: an array is not the plan's, or cannot be read; it is named.
        """
        assert not is_seen
        names = layout.tokens_path(self._split, tap), layout.scale_path(self._split, tap)
        for part, name in zip(parts, names, strict=False):
            found = self._arrays.rows(name, rows)
            part[:] = found.view(np.uint8).reshape(part.shape)

    def name(self, tap: int, shard: int) -> str:
        """The array: which of its chunks holds a row is zarr's affair."""
        assert shard >= 0
        return layout.tokens_path(self._split, tap)

    def follow(self, order: EpochOrder | None, taps: tuple[int, ...], start: int) -> None:
        """Nothing is fetched ahead."""


def check_document(path: Path, found: Any, planned: Mapping[str, Any], largest: int) -> None:
    """Refuse an array that is not the plan's, or that zarr should better not be given.

    ``largest`` is the most values that a chunk may have: nobody knows how few bytes it is made of.

    Raises:
        StoreError: so it is; the field is named.
    """
    fields = dict(found) if isinstance(found, dict) else {}
    for name in ("zarr_format", "node_type", "shape", "data_type"):
        if fields.get(name) != planned[name]:
            what = f"has {name} {str(fields.get(name))[:60]}, not {planned[name]}"
            raise StoreError(path, what, _TODO)
    codecs = sorted(set(_codec_names(fields.get("codecs"))) - CODECS)
    if codecs or fields.get("storage_transformers"):
        what = f"has codecs or storage transformers that are not read: {', '.join(codecs)[:60]}"
        raise StoreError(path, what.rstrip(": "), _TODO)
    grid = fields.get("chunk_grid")
    sides: Any = grid["configuration"]["chunk_shape"] if isinstance(grid, dict) else None
    is_regular = isinstance(sides, list) and all(type(side) is int and side > 0 for side in sides)
    if not is_regular or len(sides) != len(planned["shape"]) or prod(sides) > largest:
        what = f"has chunks {str(sides)[:60]}; {largest} values are the most that is read"
        raise StoreError(path, what, _TODO)


def _codec_names(codecs: Any) -> Iterator[str]:
    """Names of all codecs, and of those within them."""
    if not isinstance(codecs, list) or not codecs:
        yield "none"
        return
    for codec in codecs:
        fields = codec if isinstance(codec, dict) else {"name": codec}
        yield str(fields.get("name"))
        inner = fields.get("configuration")
        if isinstance(inner, dict):
            for name in {"codecs", "index_codecs"} & inner.keys():
                yield from _codec_names(inner[name])


def _is_payload(name: str) -> bool:
    """Whether an array holds records: ``<split>/tokens/tapNN`` or ``<split>/scale/tapNN``."""
    parts = name.split("/")
    return len(parts) == 3 and parts[1] in ("tokens", "scale")  # noqa: PLR2004 -- the format's depth


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Turn whatever zarr, a codec or a file system raises into an error that names the array."""
    try:
        yield
    except LosaError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:120]
        what = f"cannot be read through zarr ({type(error).__name__}: {reason})"
        raise StoreError(path, what, _TODO) from error
