"""Something-Something V2: the JSON files of its release, and webm files by number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from losa.errors import InputError
from losa.extract.annotations import Listed, read_json, safe_path
from losa.extract.clips.placing import Pattern, used_pattern
from losa.extract.clips.tables import first_file
from losa.extract.samples import Listing

LAYOUT: Final = "labels/{labels,train,validation,test}.json, 20bn-something-something-v2/ID.webm"
SOURCE: Final = "https://www.qualcomm.com/developer/software/something-something-v-2-dataset"
_SPLITS: Final = {"train": "train", "val": "validation", "test": "test"}
_PREFIX: Final = "something-something-v2-"
_FOLDERS: Final = ("20bn-something-something-v2/", "videos/", "")


def list_something(root: Path) -> Listing:
    """The clips of the release: a class is a template without its brackets.

    Raises:
        InputError: the files are missing or damaged, or no video is here.
    """
    lines = []
    for split, name in _SPLITS.items():
        file = _file_of(root, name)
        if file is not None:
            lines += [_line(entry, split, file, at) for at, entry in enumerate(_entries(file))]
    if not lines:
        raise InputError(root / "labels" / "train.json", "is missing", f"lay out {LAYOUT}")
    pattern = used_pattern(root, lines, _patterns())
    listed = [
        Listed(pattern(item), item.label, item.split, item.where, key=item.key) for item in lines
    ]
    return Listing("", root, root, listed, _classes(root))


def _file_of(root: Path, name: str) -> Path | None:
    stems = (f"{name}.json", f"{_PREFIX}{name}.json")
    return first_file(root, [f"labels/{stem}" for stem in stems] + list(stems))


def _entries(file: Path) -> Sequence[Any]:
    value = read_json(file, keep=("id", "template"))
    if not isinstance(value, list):
        raise InputError(file, "is no list of clips", "fetch the file again")
    return value


def _line(entry: Any, split: str, file: Path, at: int) -> Listed:
    """One clip; its path is its number, which a pattern makes a file's."""
    where = f"{file.name}[{at}]"
    number = entry.get("id") if isinstance(entry, dict) else None
    template = entry.get("template") if isinstance(entry, dict) else None
    if not str(number).isdecimal() or not isinstance(template, str | None):
        raise InputError(file, f"{where}: has no id, or a template that is no text", "mend it")
    label = None if template is None or split == "test" else plain_class(template)
    key = safe_path(str(number), file, where)
    return Listed(key, label, split, where, key=key)


def plain_class(template: str) -> str:
    """The class of a template.

    Example:
        >>> plain_class("Holding [something] next to [something]")
        'Holding something next to something'
    """
    return template.replace("[", "").replace("]", "")


def _patterns() -> Sequence[Pattern[Listed]]:
    def named(folder: str, ending: str) -> Pattern[Listed]:
        return lambda item: f"{folder}{item.path}.{ending}"

    return [named(folder, ending) for ending in ("webm", "mp4") for folder in _FOLDERS]


def _classes(root: Path) -> tuple[str, ...] | None:
    """Class names in the order of their numbers, if the release's file of them is here."""
    file = _file_of(root, "labels")
    if file is None:
        return None
    value = read_json(file, keep=None)
    numbers = list(value.values()) if isinstance(value, dict) else []
    if not numbers or not all(str(number).isdecimal() for number in numbers):
        raise InputError(file, "is no object of classes and their numbers", "fetch it again")
    return tuple(plain_class(name) for name in sorted(value, key=lambda name: int(value[name])))
