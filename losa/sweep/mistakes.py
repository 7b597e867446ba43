"""All mistakes of a sweep's file, found before any of them is told."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Collection
from pathlib import Path
from typing import Final

from losa.errors import InputError

MAX_TOLD: Final = 20
"""Mistakes that one message names; the rest it counts."""

_MAX_SHOWN: Final = 60


class Mistakes:
    """What is wrong with one file, as it is found."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._found: list[str] = []

    def add(self, where: str, what: str) -> None:
        """Note a mistake at a place such as ``grid.rank``."""
        self._found.append(f"{where} {what}")

    def unknown(self, where: str, name: str, known: Collection[str]) -> None:
        """Note a name that is not known, with the nearest that is."""
        near = difflib.get_close_matches(name[:_MAX_SHOWN], known, n=1)
        self.add(where, "is not known" + (f" (did you mean {near[0]}?)" if near else ""))

    def tell(self) -> None:
        """Tell of all of them at once, if there are any.

        Raises:
            InputError: there are.
        """
        if not self._found:
            return
        told = self._found[:MAX_TOLD]
        if len(self._found) > MAX_TOLD:
            told.append(f"and {len(self._found) - MAX_TOLD:,} more")
        raise InputError(self._file, ", ".join(told), "mend the file")


def shown(value: object) -> str:
    """A value for a message, cut to a few words.

    Example:
        >>> shown([1, 2]), len(shown("x" * 10_000))
        ('[1, 2]', 60)
    """
    brief = reprlib.Repr()
    brief.maxstring = brief.maxother = brief.maxlong = _MAX_SHOWN
    try:
        text = brief.repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."


def place(where: str, name: str) -> str:
    """A key's place below another, with a name that a message can hold.

    Example:
        >>> place("grid", "lr"), place("", "grid")
        ('grid.lr', 'grid')
    """
    plain = name if name.isprintable() and len(name) <= _MAX_SHOWN else shown(name)
    return f"{where}.{plain}" if where else plain
