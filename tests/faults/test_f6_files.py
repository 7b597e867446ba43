"""F6: every file deleted, renamed, or swapped with one of its kind is named, and comes back."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from losa.features import StoreDtype
from losa.store import layout
from losa.store.cleaning import clean_store
from losa.store.repair import repair_store
from losa.store.verify import verify_store
from tests.faults.content import kept, look, rich_content, untrue, write_missing, written
from tests.faults.figures import publish
from tests.store.build import tree

QUICK_STEP: Final = 11
Act = Callable[[Path, str], set[str]]


def delete(path: Path, name: str) -> set[str]:
    (path / name).unlink()
    return {name}


def rename(path: Path, name: str) -> set[str]:
    (path / name).rename(path / f"{name}.moved")
    return {name, f"{name}.moved"}


def swap(path: Path, name: str) -> set[str]:
    """Swap a file with the next of its kind that holds something else; there may be none."""
    data = (path / name).read_bytes()
    alike = [other for other in tree(path) if kind_of(other) == kind_of(name)]
    place = alike.index(name)
    for other in alike[place + 1 :] + alike[:place]:
        theirs = (path / other).read_bytes()
        if theirs != data:
            (path / name).write_bytes(theirs)
            (path / other).write_bytes(data)
            return {name, other}
    return set()


def kind_of(name: str) -> str:
    """A name but for its split, its tap and its shard."""
    return re.sub(r"\d+", "N", re.sub(r"\b(train|val)\b", "S", name))


ACTS: Final[tuple[Act, ...]] = (delete, rename, swap)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize(
    ("step", "acts"),
    [(QUICK_STEP, 1), pytest.param(1, len(ACTS), marks=pytest.mark.faults, id="whole")],
)
@pytest.mark.timeout(1800)
def test_every_file_in_turn_is_named_and_restored_byte_for_byte(
    step: int, acts: int, dtype: StoreDtype, memory: Path
) -> None:
    content = rich_content(dtype)
    path = written(memory / "s.zarr", content)
    before, seen = tree(path), look(path)
    figures = {act.__name__: 0 for act in ACTS}
    for number, name in enumerate(list(before)[::step]):
        for turn in range(acts):
            act = ACTS[(number + turn) % len(ACTS)]
            touched = act(path, name)
            if touched:
                assert touched <= {problem.path for problem in verify_store(path)}, name
                assert untrue(look(path), seen) == [], name
                repair_store(path, act=True)
                write_missing(path, content)
                assert kept(path) == before, name
                clean_store(path, older_than_days=0, act=True)
                assert tree(path) == before, name
                figures[act.__name__] += 1
    assert verify_store(path) == []
    if step == 1:
        publish(f"f6-{dtype}", {"files": len(before), **figures, "restored": sum(figures.values())})


def test_a_swap_finds_another_of_the_kind_wherever_there_are_several(memory: Path) -> None:
    path = written(memory / "s.zarr", rich_content())
    first, second = layout.tokens_object("train", 1, 0), layout.tokens_object("train", 1, 1)
    assert swap(path, first) == {first, second}
    assert swap(path, layout.PLAN_OBJECT) == set()
