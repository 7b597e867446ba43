"""The zarr v3 metadata documents of a store, written so that zarr-python reads every array.

Source: zarr core specification v3 and its sharding_indexed codec (version 1.0).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

ZARR_DTYPES: Final[Mapping[str, str]] = {
    "float16": "float16",
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
        "codecs": [_BYTES if dtype == "uint8" else _LITTLE],
        "attributes": {},
        "dimension_names": list(names),
        "storage_transformers": [],
    }


def tokens_document(shape: tuple[int, int, int], dtype: str, shard_rows: int) -> dict[str, Any]:
    """Metadata of a tap's tokens ``[n l d]``: one record a chunk, ``shard_rows`` chunks a shard.

    ``bfloat16`` is stored as ``uint16`` and tagged: zarr has no such type, and a reader that
    ignores the tag then sees integers, not wrong floats.
    """
    _, tokens, channels = shape
    document = array_document(
        shape, ZARR_DTYPES[dtype], (shard_rows, tokens, channels), ("n", "l", "d")
    )
    sharding = {
        "chunk_shape": [1, tokens, channels],
        "codecs": [_LITTLE],
        "index_codecs": [_LITTLE, {"name": "crc32c"}],
        "index_location": "end",
    }
    document["codecs"] = [{"name": "sharding_indexed", "configuration": sharding}]
    document["attributes"] = {"losa": {"dtype": dtype}}
    return document


def consolidated(root: Mapping[str, Any], members: Mapping[str, Any]) -> dict[str, Any]:
    """The root group's metadata with every member's inlined, so that one read tells all."""
    inline = {"kind": "inline", "must_understand": False, "metadata": dict(sorted(members.items()))}
    return {**root, "consolidated_metadata": inline}


def document_bytes(document: Mapping[str, Any]) -> bytes:
    """Bytes of a ``zarr.json``: indented, for people look at these."""
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()
