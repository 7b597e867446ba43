"""Tar shards for tests, written member by member."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def png(shade: int, *, size: int = 8) -> bytes:
    """An image of one shade of grey."""
    data = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), shade, np.uint8)).save(data, "PNG")
    return data.getvalue()


def write_shard(path: Path, members: Mapping[str, bytes]) -> Path:
    """A plain tar file with these members, in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def labelled_shard(path: Path, rows: Mapping[str, int]) -> Path:
    """A shard with an image and a ``.cls`` for every key."""
    members: dict[str, bytes] = {}
    for shade, (key, label) in enumerate(rows.items()):
        members[f"{key}.png"] = png(20 * shade % 256)
        members[f"{key}.cls"] = str(label).encode()
    return write_shard(path, members)
