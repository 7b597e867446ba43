"""Which patches a token policy averages: by numbers alone; bytes are known without torch."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from losa.errors import UsageError
from losa.features import TokenGrid

Window = tuple[int, int, int]
"""Time steps, grid rows and grid columns of the patches that become one token."""

_WINDOW: Final = re.compile(r"pool:(?:(\d{1,18})x)?(\d{1,18})x(\d{1,18})")


def kept_grid(text: str, grid: TokenGrid) -> tuple[TokenGrid, Window | None]:
    """Grid that a token policy leaves, and its window; none where every token is kept.

    Raises:
        UsageError: the text is no policy, or a window's side is 0.

    Example:
        >>> kept_grid("pool:2x2", TokenGrid(height=3, width=4, prefix=1))
        (TokenGrid(height=2, width=2, time=1, prefix=1), (1, 2, 2))
    """
    if text == "all":
        return grid, None
    found = _WINDOW.fullmatch(text)
    sides = tuple(int(side or 1) for side in found.groups()) if found else ()
    if text == "summary":
        sides = (grid.time, grid.height, grid.width)
    if not sides or 0 in sides:
        raise UsageError(
            "--tokens",
            f"{text[:60]!r} is not a token policy",
            "use all, pool:2x2, pool:1x2x2 or summary",
        )
    window = (min(sides[0], grid.time), min(sides[1], grid.height), min(sides[2], grid.width))
    after = replace(
        grid,
        time=-(-grid.time // window[0]),
        height=-(-grid.height // window[1]),
        width=-(-grid.width // window[2]),
    )
    return after, window
