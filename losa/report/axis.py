"""An axis of a plot: where a value stands, which values have ticks, and how they are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

Number = int | float

LOG_FROM: Final = 8.0
"""A ratio of the largest to the smallest from which costs are drawn by their logarithm."""

FEWEST_TICKS: Final = 3
"""Fewer powers of ten than this leave an axis hard to read: then halves are ticks too."""

_PREFIXES: Final = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_NICE: Final = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Axis:
    """Values from ``low`` to ``high`` along pixels from ``first`` to ``last``."""

    low: Number
    high: Number
    first: Number
    last: Number
    is_log: bool = False

    def place(self, value: Number) -> float:
        """The pixel of a value.

        Example:
            >>> Axis(1.0, 100.0, 0.0, 10.0, is_log=True).place(10.0)
            5.0
        """
        low, high, at = (self._linear(each) for each in (self.low, self.high, value))
        share = (at - low) / (high - low) if high > low else 0.5
        return round(self.first + share * (self.last - self.first), 2)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values within the axis, about so many.

        Example:
            >>> Axis(0.0, 1.0, 0.0, 1.0).ticks(), Axis(8.0, 2e3, 0.0, 1.0, is_log=True).ticks()
            ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [10.0, 100.0, 1000.0])
        """
        if self.is_log:
            found = self._decades()
            if len(found) > 1:
                return found[:: max(1, len(found) // count)]
        rough = (self.high - self.low) / count or 1.0
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(nice * power for nice in _NICE if nice * power >= rough * (1 - 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(at * step, 12) for at in range(first, last + 1)]

    def _decades(self) -> list[float]:
        """Powers of ten, and where they are few their doubles and halves too."""
        first, last = (math.floor(math.log10(each)) for each in (self.low, self.high))
        for factors in ((1.0,), (1.0, 2.0, 5.0)):
            all_of_them = [f * 10.0**power for power in range(first, last + 1) for f in factors]
            found = [value for value in all_of_them if self.low <= value <= self.high]
            if len(found) >= FEWEST_TICKS:
                break
        return found

    def _linear(self, value: Number) -> Number:
        return math.log10(value) if self.is_log else value


def axis_of(
    values: Sequence[float], pixels: tuple[Number, Number], *, may_log: bool = False
) -> Axis:
    """An axis that holds all values with a little room to either side."""
    low, high = min(values), max(values)
    if may_log and low > 0 and high / low >= LOG_FROM:
        room = (high / low) ** 0.06
        return Axis(low / room, high * room, *pixels, is_log=True)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    # A cost below zero is none, and room for it would say there might be one.
    lowest = max(0.0, low - room) if low >= 0 else low - room
    return Axis(lowest, high + room, *pixels)


def tick_text(value: Number, unit: str = "") -> str:
    """A tick's value with as many digits as it has: two ticks never look alike or uneven.

    Example:
        >>> tick_text(542.5e6, "B"), tick_text(547.5e6, "B"), tick_text(20e3), tick_text(0.1)
        ('542.5 MB', '547.5 MB', '20 k', '0.1')
    """
    digits = next((n for n in range(3, 7) if math.isclose(float(f"{value:.{n}g}"), value)), 7)
    return amount(value, unit, digits)


def amount(value: Number, unit: str = "", digits: int = 3) -> str:
    """A number as people read it, with a prefix from 1,000.

    Example:
        >>> amount(1234567, "B"), amount(0.25, "s"), amount(20), amount(999_999)
        ('1.23 MB', '0.25 s', '20', '1 M')
    """
    for size, prefix in _PREFIXES:
        if abs(value) >= size * (1 - 0.5 * 10.0**-digits):
            return f"{value / size:.{digits}g} {prefix}{unit}"
    return f"{value:.{digits}g} {unit}".rstrip()
