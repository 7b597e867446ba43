"""Mistakes of a file are told at once, each with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from losa.errors import InputError
from losa.sweep.mistakes import MAX_TOLD, Mistakes, place


def test_nothing_is_told_where_nothing_is_wrong() -> None:
    Mistakes(Path("a.yaml")).tell()


def test_all_mistakes_are_one_line_with_the_nearest_names() -> None:
    mistakes = Mistakes(Path("a.yaml"))
    mistakes.add("grid", "is empty")
    mistakes.unknown("grid.rnk", "rnk", ["rank", "lr"])
    mistakes.unknown("grid.zzz", "zzz", ["rank", "lr"])
    with pytest.raises(InputError) as caught:
        mistakes.tell()
    told = (
        "a.yaml: grid is empty, grid.rnk is not known (did you mean rank?), grid.zzz is not known"
    )
    assert str(caught.value) == f"{told}; mend the file"


def test_very_many_mistakes_are_counted() -> None:
    mistakes = Mistakes(Path("a.yaml"))
    for number in range(MAX_TOLD + 1_500):
        mistakes.add(f"list[{number}]", "is wrong")
    with pytest.raises(InputError, match="and 1,500 more"):
        mistakes.tell()


def test_a_name_that_a_terminal_would_obey_is_shown() -> None:
    assert place("grid", "\x1b[2J") == "grid.'\\x1b[2J'"
