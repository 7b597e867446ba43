"""Bytes and seconds as people read them."""

from __future__ import annotations

from typing import Final

_UNITS: Final = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
_LONG_SECONDS: Final = 7200


def in_bytes(count: int | float) -> str:
    """Bytes with three digits.

    Example:
        >>> in_bytes(13_374_000_000_000), in_bytes(7_237_120), in_bytes(12)
        ('13.4 TB', '7.24 MB', '12 B')
    """
    size, unit = next((item for item in _UNITS if count >= item[0]), _UNITS[-1])
    return f"{count / size:.3g} {unit}"


def in_time(seconds: int | float) -> str:
    """Seconds, or hours where they are many.

    Example:
        >>> in_time(452.3), in_time(6332.8), in_time(25_920), in_time(0.25)
        ('452 s', '6333 s', '7.2 h', '0.25 s')
    """
    if seconds >= _LONG_SECONDS:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"  # noqa: PLR2004 -- two digits
