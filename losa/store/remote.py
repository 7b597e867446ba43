"""Stores that lie where zarr-python and its helpers reach: behind a URL, or in an object of zarr's.

Nothing here is loaded for a store in a folder.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable
from urllib.parse import urlsplit

from losa.errors import ResourceError, StoreError, UsageError
from losa.store.foreign import named

REFUSED: Final = frozenset(["file", "local", "reference"])
"""Schemes that lead back to this machine's files, which are opened by their path or not at all."""

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]*://")


@runtime_checkable
class ZarrStore(Protocol):
    """A Store of zarr-python, of which no more is asked than this."""

    def get(self, key: str, prototype: Any, byte_range: Any = None) -> Awaitable[Any]:
        """The object of a name, or ``None``."""
        ...


class RemoteFiles:
    """The files of a store that zarr-python reaches.

    Args:
        place: a URL, or a Store of zarr's.

    Raises:
        UsageError: the URL is of a kind that is refused.
        StoreError: nothing installed opens it.
    """

    def __init__(self, place: str | ZarrStore) -> None:
        if isinstance(place, str):
            self.path = _plain(place)
            self.objects: Any = _opened(place, self.path)
        else:
            self.path = Path(type(place).__name__)
            self.objects = place

    def find(self, name: str) -> bytes | None:
        """The content of a file, or ``None`` if there is none.

        Raises:
            StoreError: it cannot be read; it is named.
        """
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        with named(self.path / name):
            found = sync(self.objects.get(name, prototype=default_buffer_prototype()))
            return None if found is None else bytes(found.to_bytes())

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            StoreError: it is missing, or cannot be read; it is named.
        """
        found = self.find(name)
        if found is None:
            raise StoreError(self.path / name, "is missing", "copy the store again")
        return found


def is_url(place: object) -> bool:
    """Whether a place is given as a URL.

    Example:
        >>> is_url("s3://bucket/photos.zarr"), is_url("photos.zarr"), is_url(Path("s3://bucket"))
        (True, False, False)
    """
    return isinstance(place, str) and _URL.match(place) is not None


def _plain(url: str) -> Path:
    """A URL for messages: without user, password and query."""
    parts = urlsplit(url)
    return Path(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")


def _opened(url: str, path: Path) -> Any:
    scheme = url.partition("://")[0].lower()
    if "::" in url or scheme in REFUSED:
        raise UsageError(path, "is a URL that is not read", "give the path of a folder")
    for opener in (_through_fsspec, _through_obstore):
        try:
            with named(path):
                return opener(url)
        except StoreError as error:
            if not isinstance(error.__cause__, ImportError):
                raise
    raise ResourceError(path, f"needs what opens {scheme}", "install obstore, or fsspec's package")


def _through_fsspec(url: str) -> Any:
    from zarr.storage import FsspecStore

    return FsspecStore.from_url(url, read_only=True)


def _through_obstore(url: str) -> Any:
    from obstore.store import from_url  # type: ignore[import-not-found]  # an optional package
    from zarr.storage import ObjectStore

    return ObjectStore(from_url(url), read_only=True)
