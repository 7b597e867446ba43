"""The HDF5 file of a store: which data sets it holds, its digest, and how an empty one lies.

All data sets are contiguous, so that rows are read and written at known bytes of the file, and the
HDF5 library sees nothing but the names. Source: docs/hdf5.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from losa.store import files, layout
from losa.store.plan import Plan
from losa.store.skeleton import statistics_of

H5_MAJOR: Final = 1
H5_MINOR: Final = 0
TEXTS: Final = ("format", "plan", "skipped", "source")
"""Attributes of the root that the digest covers."""

DIGEST: Final = "digest"
TABLES: Final = ("key", "path")
"""Columns of the listing: UTF-8, in the data set's order."""

COLUMNS: Final[Mapping[str, str]] = {
    "source_index": "<i8",
    "label": "<i4",
    "view": "|u1",
    "status": "|u1",
}
"""Columns of the rows, and what numpy takes their values for."""

_ALIGN_FROM: Final = 2**16
_ALIGN_TO: Final = 2**12
_PAGE_BYTES: Final = 2**12


class Array(NamedTuple):
    """One data set: its shape, and its values as numpy has them; texts are of fixed width."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        size = self.dtype.itemsize
        for side in self.shape:
            size *= side
        return size


def arrays_of(plan: Plan, widths: Mapping[str, int]) -> dict[str, Array]:
    """Every data set of a plan's file, by its path; ``widths`` are the bytes of a text.

    Example:
        >>> Array((2, 3), np.dtype("<f4")).nbytes
        24
    """
    _, tokens, channels = plan.spec.shape
    raw = np.dtype(layout.RAW_DTYPES[plan.spec.dtype])
    arrays: dict[str, Array] = {}
    for split, item in plan.splits.items():
        for tap in plan.spec.taps:
            arrays[layout.tokens_path(split, tap)] = Array((item.rows, tokens, channels), raw)
            arrays[layout.check_path(split, tap)] = Array((item.rows,), np.dtype("<u4"))
            if plan.spec.scale_bytes:
                scale = Array((item.rows, tokens), np.dtype(layout.SCALE_DTYPE))
                arrays[layout.scale_path(split, tap)] = scale
        for name, dtype in COLUMNS.items():
            arrays[column_path(split, name)] = Array((item.rows,), np.dtype(dtype))
        for name in TABLES:
            path = column_path(split, name)
            arrays[path] = Array((item.samples,), np.dtype(f"S{widths.get(path, 1)}"))
    for tap in plan.spec.taps:
        for name in statistics_of(plan):
            arrays[statistic_path(tap, name)] = Array((channels,), np.dtype("<f4"))
    return arrays


def column_path(split: str, name: str) -> str:
    """The data set of a column of a split's samples."""
    return f"{split}/sample/{name}"


def statistic_path(tap: int, name: str) -> str:
    """The data set of one statistic of a tap's channels."""
    return layout.statistic_object(tap, name).rpartition("/")[0]


def is_payload(path: str) -> bool:
    """Whether a data set holds records, which check values vouch for and the digest does not.

    Example:
        >>> is_payload("train/tokens/tap05"), is_payload("train/check/tap05")
        (True, False)
    """
    return path.split("/")[1] in ("tokens", "scale")


def file_digest(texts: Mapping[str, str], digests: Mapping[str, str]) -> str:
    """The sha256 over the attributes and over the digests of all data sets without records."""
    return files.sha256(files.canonical_json({"attributes": texts, "data_sets": digests}))


@dataclass(frozen=True, slots=True)
class EmptyFile:
    """A file whose data sets have their places and no values: what lies around them, by offset."""

    pieces: tuple[tuple[int, bytes], ...]
    offsets: Mapping[str, int]
    nbytes: int


def empty_file(plan: Plan, texts: Mapping[str, str], arrays: Mapping[str, Array]) -> EmptyFile:
    """Lay out a file in memory; the same arguments give the same bytes.

    The library never writes to the disk: one that is full would take the process down with it.
    """
    import h5py

    pages = _Pages()
    with h5py.File(
        pages,
        "w",
        libver=("v108", "v108"),  # texts of any length, read by every library since 2008
        alignment_threshold=_ALIGN_FROM,
        alignment_interval=_ALIGN_TO,
    ) as file:
        for name, text in texts.items():
            _set_text(file.id, name, text)
        offsets = {path: _allocate(file.id, path, item, plan) for path, item in arrays.items()}
    pieces = pages.pieces()
    ends = [pages.nbytes, *(offsets[path] + item.nbytes for path, item in arrays.items())]
    return EmptyFile(pieces, offsets, max(ends))


def _set_text(target: Any, name: str, text: str) -> None:
    from h5py import h5a, h5s

    data = text.encode()
    kind = _text_type(len(data))
    attribute = h5a.create(target, name.encode(), kind, h5s.create(h5s.SCALAR))
    attribute.write(np.array(data), mtype=kind)


def _allocate(file: Any, path: str, item: Array, plan: Plan) -> int:
    from h5py import h5d, h5p, h5s, h5t

    creation = h5p.create(h5p.DATASET_CREATE)
    creation.set_obj_track_times(False)  # equal stores are equal files
    creation.set_layout(h5d.CONTIGUOUS)
    creation.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5d.FILL_TIME_NEVER)
    is_text = item.dtype.kind == "S"
    kind = _text_type(item.dtype.itemsize) if is_text else h5t.py_create(item.dtype)
    space = h5s.create_simple(item.shape)
    _make_groups(file, path)
    created = h5d.create(file, path.encode(), kind, space, dcpl=creation)
    if path.split("/")[1] == "tokens":
        _set_text(created, "dtype", plan.spec.dtype)
    offset: int = created.get_offset()
    return offset


def _make_groups(file: Any, path: str) -> None:
    """Make the groups that a data set lies in, without the time at which it is done."""
    from h5py import h5g, h5p

    creation = h5p.create(h5p.GROUP_CREATE)
    creation.set_obj_track_times(False)
    above = path.strip("/").split("/")[:-1]
    for depth in range(1, len(above) + 1):
        name = "/".join(above[:depth]).encode()
        if not file.links.exists(name):
            h5g.create(file, name, gcpl=creation)


def _text_type(width: int) -> Any:
    from h5py import h5t

    kind = h5t.C_S1.copy()
    kind.set_size(width)
    kind.set_cset(h5t.CSET_UTF8)
    kind.set_strpad(h5t.STR_NULLPAD)
    return kind


class _Pages:
    """The memory that the library takes for a file: only what is written takes room.

    What it reads into and writes from is a buffer of a type of its own.
    """

    def __init__(self) -> None:
        self.nbytes = 0
        self._at = 0
        self._pages: dict[int, bytearray] = {}

    def pieces(self) -> tuple[tuple[int, bytes], ...]:
        """What was written, in order of its offset, up to the end of the file."""
        starts = [(number * _PAGE_BYTES, page) for number, page in sorted(self._pages.items())]
        return tuple((start, bytes(page[: self.nbytes - start])) for start, page in starts)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (self.nbytes if whence else 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, data: Any) -> int:
        for part, page, start in self._parts(data):
            part[:] = page[start : start + len(part)]
        return len(data)

    read = readinto  # what h5py knows a file by; it calls the other

    def write(self, data: Any) -> int:
        for part, page, start in self._parts(data):
            page[start : start + len(part)] = part
        self.nbytes = max(self.nbytes, self._at)
        return len(data)

    def truncate(self, size: int) -> None:
        self.nbytes = size

    def flush(self) -> None:
        """Nothing is kept back."""

    def _parts(self, data: Any) -> list[tuple[memoryview, bytearray, int]]:
        """The pages that ``data`` lies across from here on, and moves on behind it."""
        parts, rest = [], memoryview(data).cast("B")
        while rest:
            number, start = divmod(self._at, _PAGE_BYTES)
            page = self._pages.setdefault(number, bytearray(_PAGE_BYTES))
            part, rest = rest[: _PAGE_BYTES - start], rest[_PAGE_BYTES - start :]
            parts.append((part, page, start))
            self._at += len(part)
        return parts
