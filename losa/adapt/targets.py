"""A file of targets, joined to samples by their keys: one store serves any number of tasks.

The first column is ``key``. ``label`` has one class name a line, ``labels`` any number of them with
a semicolon between; without either, every other column is a number to predict. Samples that the
file does not name take no part.
"""

from __future__ import annotations

import csv
import io
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

from losa.errors import InputError
from losa.features import is_whole
from losa.store.files import canonical_json, sha256

Kind = Literal["classes", "labels", "numbers"]
"""What a sample's target is: one class, any number of labels, or numbers."""

MAX_TARGETS_BYTES: Final = 2_000_000_000
SEPARATOR: Final = ";"
_FORMS: Final = "key,label or key,labels or key and columns of numbers"


@dataclass(frozen=True, eq=False)
class Targets:
    """What a file says: of each key its class names, or its numbers in the order of ``names``."""

    kind: Kind
    names: tuple[str, ...]
    of_key: Mapping[str, tuple[str, ...] | tuple[float, ...]]

    @cached_property
    def digest(self) -> str:
        """Identity of the targets, whatever the order of the lines."""
        lines = [[key, *self.of_key[key]] for key in sorted(self.of_key)]
        return sha256(canonical_json({"kind": self.kind, "names": list(self.names), "of": lines}))


def read_targets(file: Path) -> Targets:
    """Read and check a file of targets.

    Raises:
        InputError: the file is unreadable, its header is another, a key stands twice, or a field
            is not what the header promises.
    """
    reader = csv.reader(io.StringIO(_text(file), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        kind = _kind(header, file)
        names = tuple(header[1:])
        of_key: dict[str, tuple[str, ...] | tuple[float, ...]] = {}
        for row in reader:
            if not row:
                continue
            where = f"line {reader.line_num}"
            if len(row) != len(header):
                what = f"{where} has {len(row)} fields, the header has {len(header)}"
                raise InputError(file, what, "quote commas that belong to a name")
            if row[0] in of_key:
                raise InputError(file, f"{where}: key {row[0]!r} stands twice", "name it once")
            of_key[row[0]] = _fields(row[1:], names, kind, (file, where))
    except csv.Error as error:
        raise InputError(file, f"line {reader.line_num}: {error}", "mend the file") from None
    if not of_key:
        raise InputError(file, "names no samples", "add a line for every sample")
    if kind != "numbers":
        names = _class_order({str(name) for found in of_key.values() for name in found})
    return Targets(kind, names, of_key)


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > MAX_TARGETS_BYTES:
            raise InputError(file, f"is larger than {MAX_TARGETS_BYTES} bytes", "split the task")
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(file, "is not UTF-8", "save it as UTF-8") from None
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or error
        raise InputError(file, f"cannot be read ({why})", "check --targets") from None


def _kind(header: Sequence[str], file: Path) -> Kind:
    if header[:1] != ["key"] or len(header) < 2 or len(set(header)) < len(header):  # noqa: PLR2004 -- a key and one column
        raise InputError(
            file, f"line 1: the header is {','.join(header)!r}", f"begin with {_FORMS}"
        )
    if header[1:] == ["label"]:
        return "classes"
    if header[1:] == ["labels"]:
        return "labels"
    odd = [name for name in header if name in ("label", "labels") or not _is_name(name)]
    if odd:
        what = f"line 1: column {odd[0]!r} does not go with the others"
        raise InputError(file, what, f"begin with {_FORMS}")
    return "numbers"


def _fields(
    fields: Sequence[str], names: Sequence[str], kind: Kind, place: tuple[Path, str]
) -> tuple[str, ...] | tuple[float, ...]:
    """The checked target of one line."""
    file, where = place
    if kind == "numbers":
        return tuple(_number(field, name, place) for field, name in zip(fields, names, strict=True))
    parts = fields[0].split(SEPARATOR) if kind == "labels" else fields
    found = tuple(name for part in parts if (name := part.strip()) or kind == "classes")
    for name in found:
        if not _is_name(name):
            what = f"{where}: label {name!r} is no class"
            raise InputError(file, what, "leave the line out, or name a class")
    if len(set(found)) < len(found):
        raise InputError(file, f"{where}: {fields[0]!r} names a class twice", "name it once")
    return tuple(sorted(found))


def _number(field: str, name: str, place: tuple[Path, str]) -> float:
    file, where = place
    try:
        value = float(field)
    except ValueError:
        value = math.nan
    # Squares must be finite too.
    if not abs(value) < 1e100:  # noqa: PLR2004 -- far above any measure, far below overflow
        what = f"{where}: {name} is {field[:40]!r}, no finite number"
        todo = "leave the line out; class names need the column label, or labels"
        raise InputError(file, what, todo)
    return value


def _is_name(text: str) -> bool:
    return bool(text) and not any(unicodedata.category(c) in ("Cc", "Cs") for c in text)


def _class_order(names: set[str]) -> tuple[str, ...]:
    """As text, or as numbers if all of them are."""
    whole = all(is_whole(name) for name in names)
    return tuple(sorted(names, key=lambda name: (int(name) if whole else 0, name)))
