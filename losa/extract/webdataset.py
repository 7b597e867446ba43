"""WebDataset shards as a data set: tar files whose members share a name before its first dot."""

from __future__ import annotations

import itertools
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from losa.errors import InputError, UsageError
from losa.extract.annotations import Listed, path_kind, safe_path, safe_split
from losa.extract.fetching import fetch_shards, is_url, nameless
from losa.extract.folders import SPLIT_FOLDERS
from losa.extract.media import Media
from losa.extract.samples import Listing
from losa.extract.tarindex import index_shard

MAX_SHARDS: Final = 100_000
TOGETHER: Final = "::"
"""Stands between several places of shards."""

_BRACES: Final = re.compile(r"\{([^{}]*)\}")
_RANGE: Final = re.compile(r"(\d{1,18})\.\.(\d{1,18})")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Shard:
    """A tar file, and the name by which its samples know it."""

    path: Path
    name: str


def list_shards(text: str, data_dir: Path) -> Listing:
    """The samples of all shards that a text names, shard by shard in the order of their names.

    Args:
        text: paths, folders, globs or URLs, with ``{000..009}`` and ``{a,b}``; ``::`` between them.
        data_dir: shards of a URL are kept below it, in ``wds``.

    Raises:
        UsageError: the text names no shards.
        InputError: a shard is missing, compressed or broken, or its samples are not one image each.
        ResourceError: a shard cannot be fetched.
    """
    shards = find_shards(text, data_dir)
    root = Path(os.path.commonpath([shard.path.parent for shard in shards]))
    splits = _splits(shards, root)
    lines: list[Listed] = []
    pieces: dict[str, Media] = {}
    for shard, split in zip(shards, splits, strict=True):
        stem = shard.name.removesuffix(".tar")
        for found in index_shard(shard.path):
            path = f"{shard.name}/{found.image}"
            pieces[path] = Media(shard.path, found.offset, found.size)
            where = f"{shard.path.name}: {found.image}"
            key = f"{stem}/{found.key}"
            lines.append(Listed(path, found.label, split, where, found.labels, key))
    return Listing(_name(text), root, shards[0].path, lines, pieces=pieces)


def find_shards(text: str, data_dir: Path) -> tuple[Shard, ...]:
    """The shards that a text names, those of a URL after they were fetched, sorted by name."""
    paths: list[Path] = []
    for part in text.split(TOGETHER):
        if is_url(part):
            paths += fetch_shards(part, expand_braces(part), data_dir / "wds")
        else:
            for plain in expand_braces(part):
                paths += _local(plain)
    # The folder that all lie below is left out of the names: a store must not depend on it.
    root = os.path.commonpath([path.parent for path in paths])
    shards = {path.relative_to(root).as_posix(): path for path in paths}
    names = sorted(shards)
    found = tuple(Shard(shards[name], safe_path(name, shards[name], "--dataset")) for name in names)
    if len({shard.name for shard in found}) != len(paths):
        what = f"{without_secrets(text)!r} names a shard twice"
        raise UsageError("--dataset", what, "name every shard once")
    return found


def expand_braces(text: str) -> tuple[str, ...]:
    """Every name that a pattern with ranges and lists stands for.

    Raises:
        UsageError: a brace is not closed, or the pattern stands for too many names.

    Example:
        >>> expand_braces("{train,val}-{08..10}.tar")[1:4]
        ('train-09.tar', 'train-10.tar', 'val-08.tar')
    """
    choices: list[Sequence[str]] = []
    last = 0
    for brace in _BRACES.finditer(text):
        choices += [(text[last : brace.start()],), _choices(brace[1])]
        last = brace.end()
    choices.append((text[last:],))
    total = 1
    for choice in choices:
        total *= len(choice)
    unclosed = any("{" in part or "}" in part for part in itertools.chain(*choices))
    if total > MAX_SHARDS or unclosed:
        what = f"{without_secrets(text)!r} is no pattern of at most {MAX_SHARDS} names"
        raise UsageError("--dataset", what, "write train-{000..009}.tar or {train,val}.tar")
    return tuple("".join(parts) for parts in itertools.product(*choices))


def without_secrets(text: str) -> str:
    """What was asked for, without users' names, passwords and queries of URLs.

    Example:
        >>> without_secrets("https://example.org/{0..9}.tar?token=x::more.tar")
        'https://example.org/{0..9}.tar::more.tar'
    """
    return TOGETHER.join(nameless(part) if is_url(part) else part for part in text.split(TOGETHER))


def _choices(inside: str) -> Sequence[str]:
    """What a pair of braces stands for: a range as wide as its ends are written, or a list."""
    ends = _RANGE.fullmatch(inside)
    if ends is None:
        return inside.split(",")
    first, last = int(ends[1]), int(ends[2])
    if last < first or last - first >= MAX_SHARDS:
        what = f"{{{inside}}} is no range of at most {MAX_SHARDS} numbers"
        raise UsageError("--dataset", what, "write train-{000..009}.tar")
    return [f"{number:0{len(ends[1])}d}" for number in range(first, last + 1)]


def _local(text: str) -> list[Path]:
    """The shards of a path, a folder or a glob."""
    path = Path(text)
    kind = path_kind(path)
    if kind == "file":
        found = [path]
    elif kind == "folder":
        found = [Path(above, name) for above, _, names in os.walk(path) for name in names]
        found = [file for file in found if ".tar" in file.suffixes and file.name[0] != "."]
    elif re.search(r"[*?\[]", text) and path.parent != path:
        found = list(Path(path.anchor).glob(text[len(path.anchor) :]))
    else:
        found = []
    if not found:
        raise InputError(path, "is missing, or holds no tar files", "name shards that exist")
    return [file.absolute() for file in found]


def _splits(shards: Sequence[Shard], root: Path) -> list[str | None]:
    """The split of every shard, by the usual name of one in its name, or of a folder above."""
    splits = [_split(f"{root.name}/{shard.name}") for shard in shards]
    if None in splits and any(splits):
        odd = shards[splits.index(None)]
        what = "names no split, and other shards do"
        todo = f"begin its name with one of {', '.join(SPLIT_FOLDERS)}, or leave it out"
        raise InputError(odd.path, what, todo)
    return splits


def _split(place: str) -> str | None:
    """The split that a path names: a word of its file's name, or else the whole of a folder's."""
    *folders, file = place.removesuffix(".tar").split("/")
    for word in (*re.split(r"[^A-Za-z]+", file), *reversed(folders)):
        if word.lower() in SPLIT_FOLDERS:
            return safe_split(word.lower(), Path(place), place)
    return None


def _name(text: str) -> str:
    """What a plan calls the data set: URLs as they are, but without secrets; patterns by name."""
    parts = [nameless(part) if is_url(part) else _last(part) for part in text.split(TOGETHER)]
    return f"wds:{TOGETHER.join(parts)}"


def _last(text: str) -> str:
    """The last part of a path; braces may hold slashes."""
    outside = _BRACES.sub(lambda found: "-" * len(found[0]), text.rstrip("/"))
    return text.rstrip("/")[outside.rfind("/") + 1 :] or Path.cwd().name
