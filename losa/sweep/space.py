"""Search spaces: what a field may be drawn from, and seeded draws.

A space is a mapping of fields to ranges. ``either`` holds spaces of which one is drawn, so that a
range may depend on a choice, to any depth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from losa.sweep.fields import check_value, field_name
from losa.sweep.mistakes import Mistakes, place, shown

EITHER: Final = "either"
Kind = Literal["uniform", "log-uniform", "int", "log-int"]
KINDS: Final = ("uniform", "log-uniform", "int", "log-int", "choice")
MAX_DEPTH: Final = 8


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from ``low`` to ``high``, both included where they are whole."""

    kind: Kind
    low: float
    high: float

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers are drawn."""
        return self.kind in ("int", "log-int")

    @property
    def is_log(self) -> bool:
        """Whether each factor is as likely as any other, rather than each difference."""
        return self.kind in ("log-uniform", "log-int")

    def draw(self, random: np.random.Generator) -> float | int:
        """One number."""
        share = float(random.random())
        # A whole number has the half on either side of it, so that the ends are no rarer.
        half = 0.5 if self.is_whole else 0.0
        low, high = self.low - half, self.high + half
        if self.is_log:
            value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            value = low + share * (high - low)
        inside = min(max(round(value) if self.is_whole else value, self.low), self.high)
        return int(inside) if self.is_whole else inside


@dataclass(frozen=True, slots=True)
class Choice:
    """Some values, each as likely as any other."""

    values: tuple[Any, ...]

    def draw(self, random: np.random.Generator) -> Any:
        """One of them."""
        return self.values[int(random.integers(len(self.values)))]


@dataclass(frozen=True)
class Space:
    """Ranges by field, and spaces of which one is drawn beside them."""

    ranges: Mapping[str, Range | Choice]
    either: tuple[Space, ...] = field(default=())

    def draw(self, random: np.random.Generator) -> dict[str, Any]:
        """One setting.

        Example:
            >>> space = Space({"rank": Range("int", 4.0, 4.0), "pool": Choice(("cls",))})
            >>> space.draw(np.random.default_rng(0))
            {'rank': 4, 'pool': 'cls'}
        """
        return self.pick(
            lambda _, found: found.draw(random), lambda _, count: int(random.integers(count))
        )

    def pick(
        self,
        value: Callable[[str, Range | Choice], Any],
        branch: Callable[[str, int], int],
        below: str = "",
    ) -> dict[str, Any]:
        """One setting by somebody else's values and branches, which are asked for by their place.

        Example:
            >>> space = Space({}, (Space({"lr": Choice((1,))}), Space({"lr": Choice((2,))})))
            >>> space.pick(lambda place, _: place, lambda place, count: count - 1)
            {'lr': 'either.1.lr'}
        """
        found = {name: value(below + name, one) for name, one in self.ranges.items()}
        if self.either:
            number = branch(below + EITHER, len(self.either))
            found |= self.either[number].pick(value, branch, f"{below}{EITHER}.{number}.")
        return found


def parse_space(value: object, where: str, mistakes: Mistakes, depth: int = 0) -> Space:
    """A space as the file gives it; mistakes are noted."""
    if not isinstance(value, dict) or not value:
        mistakes.add(where, f"is not a mapping of fields to ranges, but {shown(value)}")
        return Space({})
    ranges: dict[str, Range | Choice] = {}
    either: tuple[Space, ...] = ()
    for key, item in value.items():
        at = place(where, str(key))
        if key == EITHER:
            either = _parse_either(item, at, mistakes, depth)
        elif (name := field_name(key, at, mistakes)) is not None:
            if name in ranges:
                mistakes.add(at, "is given twice, with - and with _")
            found = _parse_range(name, item, at, mistakes)
            ranges.update({} if found is None else {name: found})
    for branch in either:
        for name in sorted(ranges.keys() & _fields_of(branch)):
            mistakes.add(place(where, name), f"is given beside and inside of {EITHER}")
    return Space(ranges, either)


def check_branches(value: object, at: str, mistakes: Mistakes, depth: int) -> list[Any]:
    """What ``either`` holds: two branches or more, not too deep."""
    if not isinstance(value, list) or len(value) < 2:  # noqa: PLR2004 -- one is no choice
        mistakes.add(at, f"is not a list of two or more, but {shown(value)}")
        return []
    if depth >= MAX_DEPTH:
        mistakes.add(at, f"lies more than {MAX_DEPTH} deep")
        return []
    return value


def _parse_either(value: object, at: str, mistakes: Mistakes, depth: int) -> tuple[Space, ...]:
    branches = check_branches(value, at, mistakes, depth)
    return tuple(
        parse_space(item, f"{at}[{number}]", mistakes, depth + 1)
        for number, item in enumerate(branches)
    )


def _fields_of(space: Space) -> set[str]:
    return set(space.ranges).union(*(_fields_of(branch) for branch in space.either))


def _parse_range(name: str, value: object, at: str, mistakes: Mistakes) -> Range | Choice | None:
    if not isinstance(value, dict) or len(value) != 1:
        mistakes.add(at, f"is not one range ({', '.join(KINDS)}), but {shown(value)}")
        return None
    ((kind, bounds),) = value.items()
    if kind not in KINDS:
        mistakes.unknown(place(at, str(kind)), str(kind), KINDS)
        return None
    at = place(at, kind)
    if kind == "choice":
        return _parse_choice(name, bounds, at, mistakes)
    if not isinstance(bounds, list) or len(bounds) != 2:  # noqa: PLR2004 -- low and high
        mistakes.add(at, f"is not [low, high], but {shown(bounds)}")
        return None
    low, high = (_number(name, bound, at, mistakes) for bound in bounds)
    if low is None or high is None:
        return None
    found = Range(kind, low, high)
    what = _range_mistake(found)
    if what:
        mistakes.add(at, what)
    elif not found.is_whole:
        middle = (low + high) / 2
        # A value between two whole numbers, which a field of whole numbers refuses.
        check_value(name, middle + 0.25 if middle.is_integer() else middle, at, mistakes)
    return found


def _range_mistake(found: Range) -> str:
    """What is wrong with the ends of a range, or nothing."""
    low, high = found.low, found.high
    if not low < high:
        return f"ends at {high:g}, not above {low:g}"
    if found.is_log and low <= 0:
        return f"begins at {low:g}, which has no logarithm"
    if found.is_whole and not (low.is_integer() and high.is_integer()):
        return f"has an end that is no whole number: {low:g}, {high:g}"
    return ""


def _number(name: str, bound: object, at: str, mistakes: Mistakes) -> float | None:
    """An end of a range, which must be a value of the field itself."""
    value = check_value(name, bound, at, mistakes)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        mistakes.add(at, f"is no range of numbers: {name} holds {shown(value)}")
        return None
    return float(value)


def _parse_choice(name: str, values: object, at: str, mistakes: Mistakes) -> Choice | None:
    found = parse_values(name, values, at, mistakes)
    return Choice(found) if found else None


def parse_values(name: str, values: object, at: str, mistakes: Mistakes) -> tuple[Any, ...]:
    """A list of values of a field, none of them twice."""
    if not isinstance(values, list) or not values:
        mistakes.add(at, f"is not a list of values, but {shown(values)}")
        return ()
    found = tuple(
        check_value(name, value, f"{at}[{i}]", mistakes) for i, value in enumerate(values)
    )
    seen = set[Any]()
    for number, value in enumerate(found):
        if value is not None and value in seen:
            mistakes.add(f"{at}[{number}]", f"repeats {shown(value)}")
        seen.add(value)
    return found
