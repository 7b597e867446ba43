"""Data sets that a CSV file lists: one label a line, several, or none."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from losa.errors import InputError
from losa.extract.annotations import Listed, read_text, safe_path, safe_split
from losa.extract.samples import Listing
from losa.features import MAX_DIGITS, is_whole

_COLUMNS: Final = ("path", "label", "labels", "split")
_FORMS: Final = "path,label or path,labels or path; ,split may follow"
SEPARATOR: Final = ";"
"""Stands between the class names of a field of the column ``labels``."""


def list_csv(file: Path) -> Listing:
    """A data set that a CSV file lists, with paths relative to the file.

    Raises:
        InputError: the file is unreadable, or its labels are of two kinds.
    """
    lines = read_csv(file)
    named = [(name, item) for item in lines for name in _names(item)]
    numbers = [name.isdecimal() for name, _ in named]
    if any(numbers) and not all(numbers):
        name, odd = named[numbers.index(not numbers[0])]
        what = f"{odd.where}: label {name!r} is of another kind than {named[0][0]!r}"
        raise InputError(file, what, "use names throughout, or whole numbers throughout")
    if all(numbers):
        _check_spelling(named, file)
    return Listing(f"csv:{file.name}", file.parent, file, lines)


def read_csv(file: Path) -> tuple[Listed, ...]:
    """Lines of a CSV file: ``path``, perhaps ``label`` or ``labels``, perhaps ``split``.

    Raises:
        InputError: the file is unreadable, or a line is not what the header promises.
    """
    reader = csv.reader(io.StringIO(read_text(file, "utf-8-sig"), newline=""), strict=True)
    listed = []
    try:
        header = next(reader, [])
        columns = _columns(header, file)
        for row in reader:
            if not row:
                continue
            where = f"line {reader.line_num}"
            if len(row) != len(header):
                what = f"{where} has {len(row)} fields, the header has {len(header)}"
                raise InputError(file, what, "quote commas that belong to a name")
            listed.append(_listed(row, columns, file, where))
    except csv.Error as error:
        raise InputError(file, f"line {reader.line_num}: {error}", "mend the file") from None
    if not listed:
        raise InputError(file, "lists no samples", "add a line for every image")
    return tuple(listed)


def _names(item: Listed) -> tuple[str, ...]:
    if item.labels is not None:
        return item.labels
    return () if item.label is None else (item.label,)


def _check_spelling(named: Sequence[tuple[str, Listed]], file: Path) -> None:
    """A number has one spelling: ``01`` beside ``1`` would be a second class."""
    first: dict[int, tuple[str, Listed]] = {}
    for name, item in named:
        spelt, other = first.setdefault(int(name), (name, item))
        if name != spelt:
            what = f"{item.where}: label {name!r} is the number of {other.where}"
            raise InputError(file, f"{what}, {spelt!r}", "write it in one way throughout")


def _columns(header: Sequence[str], file: Path) -> Mapping[str, int]:
    """Positions of the columns that losa reads."""
    names = [name.strip() for name in header]
    once = all(names.count(name) <= 1 for name in _COLUMNS)
    if not once or "path" not in names or {"label", "labels"} <= set(names):
        what = f"line 1: the header is {','.join(header)!r}"
        raise InputError(file, what, f"begin the file with {_FORMS}")
    # A list of paths has no other columns: "path,class" must not pass for one without labels.
    if not {"label", "labels"} & set(names) and set(names) - set(_COLUMNS):
        what = f"line 1: the header {','.join(header)!r} has no column label or labels"
        raise InputError(file, what, f"begin the file with {_FORMS}")
    return {name: names.index(name) for name in _COLUMNS if name in names}


def _listed(row: Sequence[str], columns: Mapping[str, int], file: Path, where: str) -> Listed:
    """One checked line."""
    label = labels = None
    if "label" in columns:
        label = _label(row[columns["label"]].strip(), file, where)
    if "labels" in columns:
        parts = (part.strip() for part in row[columns["labels"]].split(SEPARATOR))
        labels = tuple(_label(part, file, where) for part in parts if part)
        if len(set(labels)) != len(labels):
            what = f"{where}: labels {row[columns['labels']]!r} name a class twice"
            raise InputError(file, what, "name it once")
    split = safe_split(row[columns["split"]].strip(), file, where) if "split" in columns else None
    return Listed(safe_path(row[columns["path"]], file, where), label, split, where, labels)


def _label(label: str, file: Path, where: str) -> str:
    """One checked class name."""
    if not label or any(unicodedata.category(letter) == "Cc" for letter in label):
        raise InputError(file, f"{where}: label {label!r} is no class", "give every path a label")
    if label.isdecimal() and not is_whole(label):
        what = f"{where}: label {label[:MAX_DIGITS]!r} has more than {MAX_DIGITS} digits"
        raise InputError(file, what, "use names, or 0, 1, 2 ...")
    if not label.isdecimal() and _is_number(label):
        what = f"{where}: label {label!r} is neither a class name nor a whole number from 0"
        raise InputError(file, what, "use names, or 0, 1, 2 ...")
    return label


def _is_number(text: str) -> bool:
    """Whether Python would read the text as a number, negative, fractional or not finite."""
    try:
        float(text)
    except ValueError:
        return False
    return True
