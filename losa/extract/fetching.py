"""Shards behind a URL, fetched once each: a file is there whole, or not at all."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from losa.errors import InputError, ResourceError, UsageError
from losa.extract.annotations import safe_path
from losa.store import files

TIMEOUT_S: Final = 60
_CHUNK: Final = 1 << 20

log = logging.getLogger(__name__)


def is_url(text: str) -> bool:
    """Whether a text names something on the web.

    Example:
        >>> is_url("https://example.org/a.tar"), is_url("/data/a.tar")
        (True, False)
    """
    return text.startswith(("http://", "https://"))


def nameless(url: str) -> str:
    """A URL without what may be secret: a user's name, a password, a query.

    Example:
        >>> nameless("https://me:secret@example.org:8080/a.tar?token=x")
        'https://example.org:8080/a.tar'
    """
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def fetch_shards(pattern: str, urls: Sequence[str], cache: Path) -> list[Path]:
    """Fetch what is not in the cache yet; an interrupted fetch goes on with the next whole shard.

    Args:
        pattern: what was asked for: its sha256 names a folder in the cache.
        urls: of the shards.
        cache: where folders of shards lie.

    Raises:
        InputError: a URL names no tar file.
        ResourceError: the network or the disk does not do its part.
    """
    for url in urls:
        if "@" in urllib.parse.urlsplit(url).netloc:
            what = f"{nameless(url)} carries a user's name, which is not sent"
            raise UsageError("--dataset", what, "use a URL that needs none, or fetch it yourself")
    # Without what may be secret, which is another one tomorrow.
    folder = cache / hashlib.sha256(nameless(pattern).encode()).hexdigest()
    places = {url: folder / _shard_name(url) for url in urls}
    if len(set(places.values())) < len(set(urls)):
        what = f"{nameless(pattern)} names shards of one name in several folders"
        raise UsageError("--dataset", what, "give a pattern for each folder, joined by ::")
    missing = {url: place for url, place in places.items() if not place.exists()}
    if missing:
        log.info("%s: fetching %d of %d shards", nameless(pattern), len(missing), len(urls))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"cannot be made ({error.strerror})"
        raise ResourceError(folder, what, "give another --data-dir") from None
    for number, (url, place) in enumerate(missing.items(), 1):
        _fetch(url, place)
        size = place.stat().st_size
        log.info("fetched %s (%d of %d, %d bytes)", place.name, number, len(missing), size)
    return list(places.values())


def _shard_name(url: str) -> str:
    name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
    if not name.endswith(".tar") or "/" in name or name.startswith("."):
        what = f"{name!r} is not the name of an uncompressed tar file"
        raise InputError(nameless(url), what, "name shards such as train-{000..009}.tar")
    return safe_path(name, Path(name), "--dataset")


def _fetch(url: str, place: Path) -> None:
    """One shard: into a file beside its place, and whole to its place."""
    # The process is in the name: two that fetch the same shard must not write into one file.
    part = place.with_name(f"{place.name}.{files.owner_tag()}.part")
    todo = "check the URL and the network, and run the command again"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer, part.open("wb") as file:  # noqa: S310 -- http or https, as is_url says
            expected = answer.headers.get("Content-Length")
            shutil.copyfileobj(answer, file, _CHUNK)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        if expected is not None and size != int(expected):
            what = f"ended after {size} of {expected} bytes"
            raise ResourceError(nameless(url), what, todo)
        part.replace(place)
    except urllib.error.HTTPError as error:
        error.close()  # it is the answer, with a socket
        what = f"cannot be fetched (HTTP {error.code} {error.reason})"
        raise ResourceError(nameless(url), what, todo) from None
    except http.client.InvalidURL:
        # Its text quotes the URL, and what is secret in it.
        raise ResourceError(nameless(url), "is no URL that can be fetched", todo) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, ResourceError):
            raise
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        what = f"cannot be fetched ({' '.join(str(reason).split())})"
        raise ResourceError(nameless(url), what, todo) from None
    finally:
        part.unlink(missing_ok=True)
