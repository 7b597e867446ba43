"""Opening an HDF5 file that may be a stranger's: whatever is not as losa writes it is refused.

The library is asked for names, types and offsets, and never to read a data set. So no link is
followed, no other file opened, no filter or plugin run; all values come by ``preadv`` from this one
file. Source: docs/hdf5.md, section "What a reader must check".
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Final

import numpy as np

from losa.errors import LosaError, StoreError
from losa.store import files
from losa.store.hdf5 import DIGEST, H5_MAJOR, TEXTS, Array, arrays_of, file_digest, is_payload
from losa.store.plan import Plan
from losa.store.shardfile import FileShard

AGAIN: Final = "export the store again, or give a file that losa export has written"
_UNSOUND: Final = (
    OSError,
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    SystemError,
)
"""What h5py raises on files that are damaged or meant to harm."""

_MAX_WHAT: Final = 200
_plugins: Final = Lock()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a data set lies in the file, and what it is."""

    offset: int
    array: Array


@dataclass(frozen=True, slots=True)
class _Outline:
    """What the library says of a file."""

    texts: Mapping[str, str]
    digest: str
    plan: Plan
    places: Mapping[str, Place]


class H5File:
    """An HDF5 file of losa, held by one descriptor, whose digest is known to be right.

    Raises:
        StoreError: it is none, or is damaged; the file and the object in it are named.
        ResourceError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_symlink() and not path.exists():
            raise StoreError(path, "does not exist", "export it first, or give another file")
        self.path = path
        self._handle = files.open_regular(path)
        outline = _outline(path, self._handle)
        self.plan = outline.plan
        self.texts = outline.texts
        self._places = outline.places
        small = [name for name in sorted(outline.places) if not is_payload(name)]
        self._digests = {name: files.sha256(self._content(name)) for name in small}
        if file_digest(self.texts, self._digests) != outline.digest:
            raise StoreError(path, "does not match its digest", AGAIN)

    def __del__(self) -> None:
        # Without a handle, opening it has failed.
        if hasattr(self, "_handle"):
            os.close(self._handle)

    def read(self, name: str) -> np.ndarray:
        """The values of a data set without records, which the digest vouches for.

        Raises:
            StoreError: the file was changed since it was opened.
        """
        data = self._content(name)
        if files.sha256(data) != self._digests[name]:
            raise self.error(name, "was changed while the file was open")
        return np.frombuffer(data, dtype=self._places[name].array.dtype)

    def records(self, name: str, record_bytes: int) -> FileShard:
        """A data set of records, as one shard with a descriptor of its own."""
        base = self._places[name].offset
        return FileShard(self.path, record_bytes, base=base, handle=self._handle)

    def error(self, name: str, what: str) -> StoreError:
        """The error of something being wrong with an object of the file."""
        return StoreError(f"{self.path}:/{name}", what, AGAIN)

    def _content(self, name: str) -> memoryview:
        size = self._places[name].array.nbytes
        data = np.empty((1, size), np.uint8)
        self.records(name, size).copy([(0, 0)], data)
        return data.data.cast("B")


def _outline(path: Path, handle: int) -> _Outline:
    size = os.fstat(handle).st_size
    with _opened(path, handle) as root:
        _check_format(path, _text(root, TEXTS[0]))
        texts = {name: _text(root, name) for name in TEXTS}
        plan = Plan.from_json(files.parse_json(path, texts["plan"].encode()), path)
        wanted = arrays_of(plan, {})
        places = dict(_places(path, root, "", wanted))
        for name, place in places.items():
            if place.offset + place.array.nbytes > size:
                raise StoreError(f"{path}:/{name}", "goes beyond the end of the file", AGAIN)
        for name in wanted:
            if name not in places:
                raise StoreError(f"{path}:/{name}", "is missing", AGAIN)
        return _Outline(texts, _text(root, DIGEST), plan, places)


def _check_format(path: Path, text: str) -> None:
    major = files.parse_json(path, text.encode()).get("major")
    if major != H5_MAJOR:
        raise StoreError(
            path,
            f"is losa HDF5 format {str(major)[:20]}; this losa reads format {H5_MAJOR}",
            "upgrade with pip install -U losa",
        )


@contextmanager
def _opened(path: Path, handle: int) -> Iterator[Any]:
    """The root group of a file that is open already: its name is not looked up a second time."""
    import h5py

    try:
        with (
            os.fdopen(os.dup(handle), "rb") as stream,
            _without_plugins(),
            h5py.File(stream, "r") as file,
        ):
            yield h5py.h5g.open(file.id, b"/")
    except _UNSOUND as error:
        if isinstance(error, LosaError):
            raise
        what = " ".join(str(error).split())[:_MAX_WHAT]
        raise StoreError(path, f"is not a sound HDF5 file of losa ({what})", AGAIN) from None


@contextmanager
def _without_plugins() -> Iterator[None]:
    """Meanwhile the library finds no plugin to load, whatever HDF5_PLUGIN_PATH says."""
    from h5py import h5pl

    with _plugins:
        found = [h5pl.get(number) for number in range(h5pl.size())]
        for _ in found:
            h5pl.remove(0)
        try:
            yield
        finally:
            for place in found:
                h5pl.append(place)


def _text(root: Any, name: str) -> str:
    from h5py import h5a, h5t

    attribute = h5a.open(root, name.encode())
    kind = attribute.get_type()
    is_text = isinstance(kind, h5t.TypeStringID) and not kind.is_variable_str()
    if not is_text or attribute.shape != () or kind.get_size() > files.MAX_JSON_BYTES:
        raise ValueError(f"attribute {name} is no text of a size that is read")
    value = np.empty((), f"S{kind.get_size()}")
    attribute.read(value, mtype=kind)
    text: bytes = value.item()
    return text.decode()


def _places(
    path: Path, group: Any, prefix: str, wanted: Mapping[str, Array]
) -> Iterator[tuple[str, Place]]:
    """Every data set below a group, after a look at all that could lead elsewhere."""
    from h5py import h5d, h5g, h5l, h5o

    for part in group:
        name = prefix + part.decode(errors="backslashreplace")
        subject = f"{path}:/{name}"
        if group.links.get_info(part).type != h5l.TYPE_HARD:
            raise StoreError(subject, "is a link", AGAIN)
        is_folder = any(item.startswith(f"{name}/") for item in wanted)
        if not is_folder and name not in wanted:
            raise StoreError(subject, "does not belong into the file", AGAIN)
        found = h5o.open(group, part)
        if is_folder and isinstance(found, h5g.GroupID):
            yield from _places(path, found, f"{name}/", wanted)
        elif name in wanted and isinstance(found, h5d.DatasetID):
            yield name, _place(subject, found, wanted[name])
        else:
            raise StoreError(subject, "is another kind of object than losa writes", AGAIN)


def _place(subject: str, found: Any, wanted: Array) -> Place:
    """Where a data set lies, if it is one plain run of bytes of the type and shape wanted."""
    from h5py import h5d

    creation = found.get_create_plist()
    # First of all: asking a virtual data set for its shape may open the files it stands for.
    if creation.get_layout() != h5d.CONTIGUOUS:
        raise StoreError(subject, "is not contiguous", AGAIN)
    if creation.get_external_count():
        raise StoreError(subject, "lies in another file", AGAIN)
    dtype = _dtype(found.get_type(), wanted.dtype)
    if dtype is None:
        raise StoreError(subject, f"does not hold {wanted.dtype.str}", AGAIN)
    array = Array(found.shape, dtype)
    if array.shape != wanted.shape:
        raise StoreError(subject, f"has shape {array.shape}, not {wanted.shape}", AGAIN)
    offset = found.get_offset()
    if offset is None:
        raise StoreError(subject, "was never written", AGAIN)
    if dtype.kind == "S" and array.nbytes > files.MAX_TABLE_BYTES:
        raise StoreError(subject, f"is {array.nbytes} bytes of text", AGAIN)
    return Place(offset, array)


def _dtype(kind: Any, wanted: np.dtype[Any]) -> np.dtype[Any] | None:
    """What a data set's values are to numpy, if they are what is wanted; a text has any width."""
    from h5py import h5t

    if wanted.kind != "S":
        return wanted if kind.equal(h5t.py_create(wanted)) else None
    is_text = isinstance(kind, h5t.TypeStringID) and not kind.is_variable_str()
    if not is_text or (kind.get_cset(), kind.get_strpad()) != (h5t.CSET_UTF8, h5t.STR_NULLPAD):
        return None
    return np.dtype(f"S{kind.get_size()}")
