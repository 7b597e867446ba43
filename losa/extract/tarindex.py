"""Where the images of a tar shard lie, and what their labels are; nothing is unpacked."""

from __future__ import annotations

import json
import os
import tarfile
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from losa.errors import InputError, ResourceError
from losa.extract.annotations import safe_path
from losa.extract.images import EXTENSIONS

MAX_LABEL_BYTES: Final = 1 << 20
_BLOCK: Final = 512
_MAX_NAME: Final = 255
_COMPRESSED: Final = {
    b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd",
}  # fmt: skip
_LABELS: Final = ("cls", "json", "lst", "txt")
"""Extensions of the members that may say a sample's label; the first that does counts."""


@dataclass(frozen=True, slots=True)
class TarSample:
    """One sample of a shard: its key, its image's member and place, and its label or labels."""

    key: str
    image: str
    offset: int
    size: int
    label: str | None
    labels: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    offset: int
    size: int


def index_shard(path: Path) -> tuple[TarSample, ...]:
    """The samples of a shard that hold an image, in the shard's order.

    Raises:
        InputError: the shard is missing, compressed or broken, a member is no plain file below the
            shard, or a sample has two images or no sound label.
        ResourceError: the shard cannot be read.
    """
    try:
        with path.open("rb") as file:
            _check_plain(file.read(8), path)
            groups = _groups(path)
            found = [
                _sample(key, members, file.fileno(), path)
                for key, members in groups.items()
                if any(_is_image(name) for name in members)
            ]
    except FileNotFoundError:
        raise InputError(path, "is missing", "name shards that exist") from None
    except InputError:
        raise
    except OSError as error:
        raise ResourceError(path, f"cannot be read ({error.strerror})", "check it") from None
    if not found:
        raise InputError(path, "holds no images", "leave the shard out")
    return tuple(found)


def _check_plain(head: bytes, path: Path) -> None:
    for magic, name in _COMPRESSED.items():
        if head.startswith(magic):
            what = f"is compressed ({name}): images cannot be read from where they lie"
            raise InputError(path, what, "unpack it to a plain .tar")


def _groups(path: Path) -> dict[str, dict[str, _Member]]:
    """Members by the key of their sample and their extension."""
    groups: dict[str, dict[str, _Member]] = {}
    for member in _members(path):
        folder, _, name = member.name.rpartition("/")
        base, _, extension = name.partition(".")
        key = f"{folder}/{base}" if folder else base
        group = groups.setdefault(key, {})
        if extension.lower() in group:
            what = f"member {member.name!r} stands twice"
            raise InputError(path, what, "write the shard anew with distinct keys")
        group[extension.lower()] = member
    return groups


def _members(path: Path) -> Iterator[_Member]:
    """The plain files of a tar archive that ends as it should."""
    broken = (tarfile.TarError, EOFError, ValueError, MemoryError, OverflowError, RecursionError)
    last, end = -1, 0
    size = path.stat().st_size
    try:
        with tarfile.open(path, "r:", errors="surrogateescape") as archive:
            while (info := archive.next()) is not None:
                if info.offset <= last or not 0 <= info.size <= size - info.offset_data:
                    raise ValueError(f"member {info.name!r} lies outside of it")
                last = info.offset
                end = info.offset_data + -(-info.size // _BLOCK) * _BLOCK
                if (member := _checked(info, path)) is not None:
                    yield member
    except InputError:
        raise
    except broken as error:
        what = f"is no sound tar file ({' '.join(str(error).split()) or type(error).__name__})"
        raise InputError(path, what, "fetch or write the shard again") from None
    _check_end(path, end)


def _check_end(path: Path, end: int) -> None:
    """An archive ends with zeros: what ends without was cut, what holds more was joined."""
    with path.open("rb") as file:
        file.seek(end)
        ending = file.read(_BLOCK)
        if len(ending) < _BLOCK:
            what = "is cut: the block that ends a tar file is missing"
            raise InputError(path, what, "fetch or write the shard again")
        while ending:
            if any(ending):
                what = f"holds something that is no member after byte {end}"
                raise InputError(path, what, "fetch it again, or write it as one archive")
            ending = file.read(_BLOCK * 128)


def _checked(info: tarfile.TarInfo, path: Path) -> _Member | None:
    """A member that losa may read; ``None`` for folders and for what tools leave behind."""
    if info.isdir():
        return None
    if not info.isreg() or info.issparse():
        kind = "sparse" if info.issparse() else "a link" if _is_link(info) else "no plain file"
        what = f"member {info.name!r} is {kind}"
        raise InputError(path, what, "write the shard anew with plain files")
    name = safe_path(info.name, path, "member")
    if PurePosixPath(name).name.startswith((".", "__")):
        return None
    return _Member(name, info.offset_data, info.size)


def _is_link(info: tarfile.TarInfo) -> bool:
    return info.issym() or info.islnk()


def _is_image(extension: str) -> bool:
    return f".{extension.rpartition('.')[2]}" in EXTENSIONS


def _sample(key: str, members: Mapping[str, _Member], shard: int, path: Path) -> TarSample:
    """One sample; an image with a plain extension counts before ``.seg.png`` and its like."""
    images = [name for name in members if _is_image(name)]
    plain = [name for name in images if "." not in name]
    chosen = plain or images
    if len(chosen) != 1:
        what = f"sample {key!r} has {len(chosen)} images: {', '.join(sorted(chosen))}"
        raise InputError(path, what, "keep one image a sample")
    image = members[chosen[0]]
    label, labels = None, None
    for extension in _LABELS:
        if extension in members and (label, labels) == (None, None):
            label, labels = _label(extension, members[extension], shard, path)
    return TarSample(key, image.name, image.offset, image.size, label, labels)


def _label(
    extension: str, member: _Member, shard: int, path: Path
) -> tuple[str | None, tuple[str, ...] | None]:
    """The label or the labels that a member says."""
    if member.size > MAX_LABEL_BYTES:
        what = f"member {member.name!r} is too large for a label ({member.size} bytes)"
        raise InputError(path, what, "write the shard anew")
    data = os.pread(shard, member.size, member.offset)
    try:
        text = data.decode()
        if extension == "json":
            return _json_label(json.loads(text))
        if extension == "lst":
            return None, tuple(_name(line) for line in text.split("\n") if line.strip())
        name = _name(text)
        # "07" and "7" are one number, and one class.
        return (str(int(name)) if extension == "cls" and name.isdecimal() else name), None
    except (ValueError, RecursionError) as error:
        what = f"member {member.name!r} holds no label ({' '.join(str(error).split())})"
        raise InputError(path, what, "write the shard anew") from None


def _json_label(value: Any) -> tuple[str | None, tuple[str, ...] | None]:
    """What a JSON object says under ``label`` or ``labels``; other members are not losa's."""
    if not isinstance(value, dict):
        return _name(value), None
    if isinstance(value.get("labels"), list):
        return None, tuple(_name(item) for item in value["labels"])
    return (_name(value["label"]) if "label" in value else None), None


def _name(value: Any) -> str:
    """A class's name, from text or from a whole number."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return str(value)
    text = value.strip() if isinstance(value, str) else ""
    odd = any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text)
    if not text or odd or len(text.encode(errors="replace")) > _MAX_NAME:
        raise ValueError("a label is a name or a whole number from 0")
    return text
