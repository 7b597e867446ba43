"""Listings that come from files, read as if a stranger had written them; COCO-style JSON.

A mistake names the file and the line, the byte or the entry. Nothing that a listing says may lead
outside the data set's folder.
"""

from __future__ import annotations

import json
import re
import stat
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from losa.errors import InputError

MAX_LISTING_BYTES: Final = 2_000_000_000
"""The largest real listing, iNaturalist 2021, is about half of this."""

_MAX_NAME_BYTES: Final = 255
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_SPLIT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_KEPT: Final = frozenset(
    ["images", "annotations", "categories", "id", "file_name", "image_id", "category_id", "name"]
)


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of a listing: a path below its root, a class name, and a split if it names one.

    ``labels`` are the class names where a line may have several, and none where it has one or no
    label; ``key`` names the sample where its path does not.
    """

    path: str
    label: str | None
    split: str | None
    where: str
    labels: tuple[str, ...] | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class CocoListing:
    """What losa needs of a COCO-style file: images with their category, and category names."""

    images: tuple[tuple[str, int], ...]
    categories: Mapping[int, str]


def path_kind(path: Path) -> Literal["file", "folder", "other"] | None:
    """What a path leads to; ``None`` where there is nothing.

    Raises:
        InputError: the system refuses to say: permission denied, a name too long, a loop of links.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        # ValueError: a NUL or half a surrogate pair, which a message must not repeat raw.
        subject = ascii(str(path)) if isinstance(error, ValueError) else path
        why = (error.strerror if isinstance(error, OSError) else None) or error
        what = f"cannot be looked at ({why})"
        raise InputError(subject, what, "check the path and its permissions") from None
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"


def check_keys(keys: Iterable[str], where: Callable[[int], str], source: Path) -> None:
    """Keys are UTF-8 and unique, even for a file system that ignores case or normalisation.

    Args:
        keys: every key of a data set.
        where: says where the key of a position stands.
        source: what lists them.

    Raises:
        InputError: a key is not UTF-8, or two name the same sample.
    """
    seen: dict[str, int] = {}
    for position, key in enumerate(keys):
        if any("\ud800" <= letter <= "\udfff" for letter in key):
            raise InputError(source, f"file name {key!r} is not UTF-8", "rename the file")
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", key).casefold())
        first = seen.setdefault(folded, position)
        if first != position:
            what = f"{where(position)} and {where(first)} name the same sample {key!r}"
            raise InputError(source, what, "list every image once, under one spelling")


def safe_path(text: str, file: Path, where: str) -> str:
    """A relative POSIX path from a listing, normalised, that stays below its root.

    Raises:
        InputError: the path is empty, absolute or a URL, climbs, or holds what no file name should.

    Example:
        >>> safe_path("./birds//owl 1.jpg", Path("list.csv"), "line 2")
        'birds/owl 1.jpg'
    """
    parts = text.split("/")
    wrong = None
    if not text.strip("./"):
        wrong = "is empty"
    elif any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
        wrong = "holds a control character"
    elif text.startswith("/") or "\\" in text or _SCHEME.match(text):
        wrong = "is not a relative POSIX path"
    elif ".." in parts or text.startswith("-"):
        wrong = "does not name a file below the folder"
    elif any(len(part.encode()) > _MAX_NAME_BYTES for part in parts):
        wrong = f"holds a name of more than {_MAX_NAME_BYTES} bytes"
    if wrong:
        todo = "list paths such as class/picture.jpg, relative to the folder"
        raise InputError(file, f"{where}: path {text!r} {wrong}", todo)
    return PurePosixPath(text).as_posix()


def safe_split(text: str, file: Path, where: str) -> str:
    """A split's name, fit to name a group of a store; ``valid`` and ``validation`` mean ``val``.

    Raises:
        InputError: the name holds more than letters, digits, ``_`` and ``-``.
    """
    if not _SPLIT.fullmatch(text):
        raise InputError(
            file, f"{where}: {text!r} cannot name a split", "use letters, digits, _ and -"
        )
    return "val" if text in ("valid", "validation") else text


def read_coco(file: Path) -> CocoListing:
    """Images, their one category each, and the categories of a COCO-style JSON file.

    Raises:
        InputError: the file is unreadable or not of this form, or an image has not one category.
    """
    value = read_json(file)
    if not isinstance(value, dict) or not {"images", "annotations", "categories"} <= set(value):
        what = "is not an object with images, annotations and categories"
        raise InputError(file, what, "use the file of the release, unpacked")
    categories = category_names(value["categories"], file)
    labels = _labels(value, categories, file)
    images = []
    for position, entry in enumerate(_entries(value, "images", file)):
        where = f"images[{position}]"
        image = _integer(entry, "id", file, where)
        name = entry.get("file_name")
        if not isinstance(name, str):
            raise InputError(file, f"{where}: file_name is no text", "mend the file")
        if image not in labels:
            what = f"{where}: image {image} stands twice or has no annotation"
            raise InputError(file, what, "mend the file")
        images.append((safe_path(name, file, where), labels.pop(image)))
    if labels:
        what = f"annotations name image {next(iter(labels))}, which is not listed"
        raise InputError(file, what, "mend the file")
    if not images:
        raise InputError(file, "lists no images", "use the file of the release, unpacked")
    return CocoListing(tuple(images), categories)


def _labels(value: Mapping[str, Any], categories: Mapping[int, str], file: Path) -> dict[int, int]:
    """The one category of every image, by the image's id."""
    labels: dict[int, int] = {}
    for position, entry in enumerate(_entries(value, "annotations", file)):
        where = f"annotations[{position}]"
        image = _integer(entry, "image_id", file, where)
        label = _integer(entry, "category_id", file, where)
        if image in labels:
            raise InputError(file, f"{where}: image {image} has two annotations", "keep one")
        if label not in categories:
            raise InputError(file, f"{where}: category {label} is not listed", "mend the file")
        labels[image] = label
    return labels


def category_names(value: Any, file: Path) -> dict[int, str]:
    """Names of categories by id; a name that two ids share is told apart by its id.

    Raises:
        InputError: the value is not a list of categories with distinct ids and names.
    """
    entries = _entries({"categories": value}, "categories", file)
    names: dict[int, str] = {}
    for position, entry in enumerate(entries):
        where = f"categories[{position}]"
        number = _integer(entry, "id", file, where)
        name = entry.get("name")
        if number in names or not isinstance(name, str) or not name:
            what = f"{where}: id {number} stands twice, or its name is no text"
            raise InputError(file, what, "mend the file")
        names[number] = name
    shared = {name for name, count in _counts(names.values()).items() if count > 1}
    return {
        number: f"{name} [{number}]" if name in shared else name
        for number, name in sorted(names.items())
    }


def read_json(file: Path, *, keep: Collection[str] | None = _KEPT) -> Any:
    """A JSON value of which only the members that losa reads are kept, to save memory.

    Args:
        file: the file.
        keep: names of the members; ``None`` keeps all.

    Raises:
        InputError: the file is unreadable, too large, or not JSON; the message names the byte.
    """
    text = read_text(file)
    try:
        # NaN is read as null: iNaturalist 2021 has it for unknown places, and what losa reads is
        # never null.
        return json.loads(
            text, object_pairs_hook=partial(_kept, keep=keep), parse_constant=lambda _: None
        )
    except json.JSONDecodeError as error:
        offset = len(text[: error.pos].encode())
        raise InputError(file, f"byte {offset}: {error.msg}", "fetch the file again") from None
    except (RecursionError, ValueError) as error:
        what = "is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(file, what, "fetch the file again") from None


def _kept(pairs: list[tuple[str, Any]], keep: Collection[str] | None) -> dict[str, Any]:
    """An object's members that losa reads; a repeated name is a mistake."""
    found = dict(pairs)
    if len(found) != len(pairs):
        name = next(name for name, count in _counts(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"member {name!r} stands twice in an object")
    return {name: value for name, value in found.items() if keep is None or name in keep}


def _counts(names: Any) -> dict[str, int]:
    """How often each name occurs."""
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _entries(value: Mapping[str, Any], name: str, file: Path) -> list[dict[str, Any]]:
    """A list of objects."""
    entries = value[name]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(file, f"{name} is not a list of objects", "fetch the file again")
    return entries


def _integer(entry: Mapping[str, Any], name: str, file: Path, where: str) -> int:
    """A whole number from 0 of an entry."""
    value = entry.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        what = f"{where}: {name} is {value!r}, not a whole number from 0"
        raise InputError(file, what, "mend the file")
    return value


def read_text(file: Path, encoding: str = "utf-8") -> str:
    """A listing's text.

    Raises:
        InputError: the file is missing, not regular, larger than any listing is, or not UTF-8.
    """
    try:
        if path_kind(file) != "file":
            raise InputError(file, "is missing or no regular file", "name a file that exists")
        if file.stat().st_size > MAX_LISTING_BYTES:
            what = f"is larger than {MAX_LISTING_BYTES} bytes"
            raise InputError(file, what, "split it")
        data = file.read_bytes()
    except OSError as error:
        raise InputError(file, f"cannot be read ({error.strerror})", "check the file") from None
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"byte {error.start} (line {line}) is not UTF-8"
        raise InputError(file, what, "save the file as UTF-8") from None
