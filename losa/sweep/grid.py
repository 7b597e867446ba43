"""Grids: every combination of some values, counted before one is made."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from losa.sweep.fields import field_name
from losa.sweep.mistakes import Mistakes, place, shown
from losa.sweep.space import EITHER, check_branches, parse_values


@dataclass(frozen=True)
class Grid:
    """Values by field; of ``either``, each grid in turn beside all of them."""

    axes: Mapping[str, tuple[Any, ...]]
    either: tuple[Grid, ...] = field(default=())

    def count(self) -> int:
        """How many settings there are.

        Example:
            >>> Grid({"rank": (1, 2), "lr": (0.1, 0.2, 0.3)}).count()
            6
        """
        branches = sum(grid.count() for grid in self.either) if self.either else 1
        return math.prod(map(len, self.axes.values())) * branches

    def settings(self) -> Iterator[dict[str, Any]]:
        """All of them; the field that stands last in the file changes fastest.

        Example:
            >>> list(Grid({"rank": (2,)}, (Grid({"pool": ("cls",)}), Grid({"lr": (1.0,)})))
            ...     .settings())
            [{'rank': 2, 'pool': 'cls'}, {'rank': 2, 'lr': 1.0}]
        """
        for values in itertools.product(*self.axes.values()):
            own = dict(zip(self.axes, values, strict=True))
            if not self.either:
                yield own
            for grid in self.either:
                yield from ({**own, **setting} for setting in grid.settings())


def parse_grid(value: object, where: str, mistakes: Mistakes, depth: int = 0) -> Grid:
    """A grid as the file gives it; mistakes are noted."""
    if not isinstance(value, dict) or not value:
        mistakes.add(where, f"is not a mapping of fields to lists, but {shown(value)}")
        return Grid({})
    axes: dict[str, tuple[Any, ...]] = {}
    either: tuple[Grid, ...] = ()
    for key, item in value.items():
        at = place(where, str(key))
        if key == EITHER:
            branches = enumerate(check_branches(item, at, mistakes, depth))
            either = tuple(
                parse_grid(one, f"{at}[{i}]", mistakes, depth + 1) for i, one in branches
            )
        elif (name := field_name(key, at, mistakes)) is not None:
            if name in axes:
                mistakes.add(at, "is given twice, with - and with _")
            axes[name] = parse_values(name, item, at, mistakes)
    for branch in either:
        for name in sorted(axes.keys() & _fields_of(branch)):
            mistakes.add(place(where, name), f"is given beside and inside of {EITHER}")
    return Grid(axes, either)


def _fields_of(grid: Grid) -> set[str]:
    return set(grid.axes).union(*(_fields_of(branch) for branch in grid.either))
