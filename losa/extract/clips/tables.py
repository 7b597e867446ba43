"""Annotation files of video data sets: CSV tables with a header, and lists of one line a clip."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from losa.errors import InputError
from losa.extract.annotations import path_kind, read_text


def first_file(root: Path, names: Sequence[str]) -> Path | None:
    """The first of some files that is there."""
    return next((root / name for name in names if path_kind(root / name) == "file"), None)


def table_rows(file: Path, needed: Collection[str]) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Where each line stands, and its fields by the names of the header.

    Raises:
        InputError: the file is unreadable, lacks a column, or a line has other fields.
    """
    reader = csv.reader(io.StringIO(read_text(file, "utf-8-sig"), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        missing = sorted(set(needed) - set(header))
        if missing:
            what = f"line 1: has no column {missing[0]!r}"
            raise InputError(file, what, "use the annotation file of the release")
        for row in reader:
            where = f"line {reader.line_num}"
            if row and len(row) != len(header):
                what = f"{where} has {len(row)} fields, the header has {len(header)}"
                raise InputError(file, what, "fetch the file again")
            if row:
                fields = (field.strip() for field in row)
                yield where, dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise InputError(file, f"line {reader.line_num}: {error}", "mend the file") from None


def list_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Where each line of a list stands, and its text; empty ones are left out."""
    for number, line in enumerate(read_text(file, "utf-8-sig").splitlines(), start=1):
        if line.strip():
            yield f"line {number}", line.strip()


def number_of(text: str, file: Path, where: str, name: str) -> float:
    """A finite number from 0.

    Raises:
        InputError: it is none.
    """
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1e9:  # noqa: PLR2004 -- no video lasts thirty years
        raise InputError(file, f"{where}: {name} is {text[:40]!r}", "mend the file")
    return found
