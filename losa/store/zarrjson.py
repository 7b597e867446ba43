"""The zarr v3 metadata documents of a store, written so that zarr-python reads every array.

Source: zarr core specification v3 and its sharding_indexed codec (version 1.0).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

ZARR_DTYPES: Final[Mapping[str, str]] = {
    "float16": "float16",
    "int8": "int8",
    "bfloat16": "uint16",
    "float32": "float32",
}
_LITTLE: Final = {"name": "bytes", "configuration": {"endian": "little"}}
_BYTES: Final = {"name": "bytes"}


def group_document(attributes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Metadata of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes or {})}


def array_document(
    shape: tuple[int, ...], dtype: str, chunk: tuple[int, ...], names: tuple[str, ...]
) -> dict[str, Any]:
    """Metadata of a plain, uncompressed array."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": 0.0 if dtype.startswith("float") else 0,
        "codecs": [_bytes_codec(dtype)],
        "attributes": {},
        "dimension_names": list(names),
        "storage_transformers": [],
    }


def tokens_document(shape: tuple[int, int, int], dtype: str, shard_rows: int) -> dict[str, Any]:
    """Metadata of a tap's tokens ``[n l d]``: one record a chunk, ``shard_rows`` chunks a shard.

    ``bfloat16`` is stored as ``uint16`` and tagged: zarr has no such type, and a reader that
    ignores the tag then sees integers, not wrong floats.
    """
    document = _sharded(shape, ZARR_DTYPES[dtype], ("n", "l", "d"), shard_rows)
    document["attributes"] = {"losa": {"dtype": dtype}}
    return document


def scale_document(shape: tuple[int, int], shard_rows: int) -> dict[str, Any]:
    """Metadata of the scales ``[n l]`` of a tap's int8 tokens, sharded as the tokens are."""
    return _sharded(shape, "float16", ("n", "l"), shard_rows)


def _sharded(
    shape: tuple[int, ...], dtype: str, names: tuple[str, ...], shard_rows: int
) -> dict[str, Any]:
    document = array_document(shape, dtype, (shard_rows, *shape[1:]), names)
    sharding = {
        "chunk_shape": [1, *shape[1:]],
        "codecs": [_bytes_codec(dtype)],
        "index_codecs": [_LITTLE, {"name": "crc32c"}],
        "index_location": "end",
    }
    document["codecs"] = [{"name": "sharding_indexed", "configuration": sharding}]
    return document


def _bytes_codec(dtype: str) -> Mapping[str, Any]:
    # The byte order of single bytes is left out, as zarr-python does.
    return _BYTES if dtype in ("uint8", "int8") else _LITTLE


def consolidated(root: Mapping[str, Any], members: Mapping[str, Any]) -> dict[str, Any]:
    """The root group's metadata with every member's inlined, so that one read tells all."""
    inline = {"kind": "inline", "must_understand": False, "metadata": dict(sorted(members.items()))}
    return {**root, "consolidated_metadata": inline}


def document_bytes(document: Mapping[str, Any]) -> bytes:
    """Bytes of a ``zarr.json``: indented, for people look at these."""
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()
