"""Shards behind a URL, fetched once each: a file is there whole, or not at all.

Of several processes that want a shard one fetches it, and the others wait. That spares the network
and no more: each writes into a file of its own, so where locks do not reach nothing is damaged.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import logging
import os
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from email.message import Message
from pathlib import Path
from typing import Any, Final

from losa.errors import InputError, LosaError, ResourceError, UsageError
from losa.extract.annotations import safe_path
from losa.store import files, lock

TIMEOUT_S: Final = 60
STALL_SECONDS: Final = 300.0
"""How long a shard is left to another process from which no byte comes."""

POLL_SECONDS: Final = 0.25
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
        UsageError: a URL carries a user's name, or two shards have one name.
        InputError: a URL names no tar file, or shards have changed since some were fetched.
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
    missing = {url: place for url, place in places.items() if not _is_whole(place)}
    for place in missing.values():
        _tell_if_cut(place)
    if missing:
        log.info("%s: fetching %d of %d shards", nameless(pattern), len(missing), len(urls))
        _make(folder)
        _check_unchanged({url: place for url, place in places.items() if url not in missing})
        _fetch_missing(missing)
    return list(places.values())


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"cannot be made ({error.strerror})"
        raise ResourceError(folder, what, "give another --data-dir") from None


def _fetch_missing(missing: Mapping[str, Path]) -> None:
    """Fetch shards: first those that no other process fetches, then what is still not there."""
    left = dict(missing)
    for seconds in (0.0, STALL_SECONDS):
        for url, place in list(left.items()):
            if _fetch_or_leave(url, place, seconds):
                del left[url]
                size = place.stat().st_size
                done = len(missing) - len(left)
                log.info("%s is here (%d of %d, %d bytes)", place.name, done, len(missing), size)


def _fetch_or_leave(url: str, place: Path, seconds: float) -> bool:
    """See to it that a shard is there, unless another process fetches it; says whether it is.

    With ``seconds`` the other one is waited for, and no longer once so many have brought nothing.
    """
    with _turn(place, seconds) as is_ours:
        if _is_whole(place):
            return True
        if not is_ours:
            if not seconds:
                return False
            log.warning("%s: nothing has come from another process for long", place.name)
        _sweep(place)
        _fetch(url, place)
    return True


@contextmanager
def _turn(place: Path, seconds: float) -> Iterator[bool]:
    """Hold the lock of a shard, as soon as it is free or not needed; says whether it is held.

    A process that dies loses its lock at once.
    """
    seen, since = _parts(place), time.monotonic()
    while True:
        with lock.turn_by_file(place.with_name(f".{place.name}.lock")) as is_ours:
            if is_ours or _is_whole(place) or time.monotonic() - since >= seconds:
                yield is_ours
                return
        time.sleep(POLL_SECONDS)
        now = _parts(place)
        if now != seen:
            seen, since = now, time.monotonic()


def _parts(place: Path) -> dict[Path, int]:
    """The files into which a shard is being fetched, or was, and how long each is."""
    found = {}
    for path in place.parent.iterdir():
        if path.name.startswith(f"{place.name}.") and path.suffix == ".part":
            with suppress(FileNotFoundError):
                found[path] = path.stat().st_size
    return found


def _sweep(place: Path) -> None:
    """Remove what dead fetches of a shard have left; those of another machine go by their age."""
    for path in _parts(place):
        tag = path.name.removeprefix(f"{place.name}.").removesuffix(".part")
        with suppress(FileNotFoundError):
            if files.tag_is_dead(tag) or time.time() - path.stat().st_mtime > 2 * STALL_SECONDS:
                path.unlink()


def _shard_name(url: str) -> str:
    name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
    if not name.endswith(".tar") or "/" in name or name.startswith("."):
        what = f"{name!r} is not the name of an uncompressed tar file"
        raise InputError(nameless(url), what, "name shards such as train-{000..009}.tar")
    return safe_path(name, Path(name), "--dataset")


def _fetch(url: str, place: Path) -> None:
    """One shard: into a file beside its place, and whole to its place.

    Raises:
        ResourceError: the server, the network or the disk does not do its part.
    """
    # The process is in the name: two that fetch the same shard must not write into one file.
    part = place.with_name(f"{place.name}.{files.owner_tag()}.part")
    todo = "check the URL and the network, and run the command again"
    try:
        with _named(url, todo), urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 -- http or https, as is_url says
            with part.open("wb") as file:
                shutil.copyfileobj(answer, file, _CHUNK)
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
            facts = _facts(answer.headers)
        if facts["size"] not in (None, size):
            what = f"ended after {size} of {facts['size']} bytes"
            raise ResourceError(nameless(url), what, todo)
        data = files.canonical_json({**facts, "size": size})
        files.write_atomic(_record(place), data, durable=False)
        with _named(url, todo):
            part.replace(place)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _named(url: str, todo: str) -> Iterator[None]:
    """Turn an error into one line that names a URL, without what may be secret of it."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()  # it is the answer, with a socket
        what = f"cannot be fetched (HTTP {error.code} {error.reason})"
        raise ResourceError(nameless(url), what, todo) from None
    except http.client.InvalidURL:
        # Its text quotes the URL, and what is secret in it.
        raise ResourceError(nameless(url), "is no URL that can be fetched", todo) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        what = f"cannot be fetched ({' '.join(str(reason).split())})"
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            todo = "free space or give another --data-dir, and run the command again"
        raise ResourceError(nameless(url), what, todo) from None


def _facts(headers: Message) -> dict[str, Any]:
    """What a server tells of a file: its size, and by what it is known from another version."""
    length = headers.get("Content-Length", "")
    return {
        "size": int(length) if length.isascii() and length.isdigit() else None,
        "etag": headers.get("ETag"),
        "modified": headers.get("Last-Modified"),
    }


def _record(place: Path) -> Path:
    """Where it stands what the server told of a shard."""
    return place.with_name(f".{place.name}.json")


def _recorded(place: Path) -> dict[str, Any]:
    """What the server told of a shard when it was fetched, as far as that is known."""
    try:
        return files.read_json(_record(place))
    except LosaError:
        return {}


def _is_whole(place: Path) -> bool:
    """Whether a shard is in the cache, and as long as it was when it was fetched."""
    try:
        size = place.stat().st_size
    except FileNotFoundError:
        return False
    except OSError as error:
        raise files.resource_error(place, error) from None
    return bool(_recorded(place).get("size", size) == size)


def _tell_if_cut(place: Path) -> None:
    """Say of a shard that is in the cache and not whole that it is fetched again."""
    with suppress(FileNotFoundError):
        size, wanted = place.stat().st_size, _recorded(place).get("size")
        log.warning("%s has %d bytes, not %s: it is fetched again", place, size, wanted)


def _check_unchanged(here: Mapping[str, Path]) -> None:
    """Refuse to add to shards that are another version's than what the server has now.

    One is asked about, the last; a server that does not answer that is left in peace.

    Raises:
        InputError: its size is another one, or by all signs it was written again.
    """
    if not here:
        return
    url, place = list(here.items())[-1]
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 -- http or https, as is_url says
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 -- as above
            now = _facts(answer.headers)
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        log.debug("%s: %s", nameless(url), type(error).__name__)
        return
    then = _recorded(place)
    known = {name for name in now if now[name] is not None and then.get(name) is not None}
    differs = {name: now[name] != then[name] for name in known}
    # One sign alone may lie: servers behind one name have an ETag each, and a copy another date.
    signs = [differs[name] for name in ("etag", "modified") if name in known]
    if differs.get("size", False) or (signs and all(signs)):
        what = "is another version than the one that was fetched"
        raise InputError(nameless(url), what, f"remove {place.parent} to fetch all shards again")
