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

    A summary is the mean of the patches that lie beside the same prefix tokens: of a time step
    where each has its own, else of the whole clip. Prefix tokens of time steps are averaged over
    the steps that become one.

    Raises:
        UsageError: the text is no policy, or a window's side is 0.

    Example:
        >>> grid, window = kept_grid("pool:2x2", TokenGrid(height=3, width=4, prefix=1))
        >>> grid.height, grid.width, window
        (2, 2, (1, 2, 2))
        >>> clip = TokenGrid(16, 16, time=8, prefix=8, is_prefix_per_step=True)
        >>> [kept_grid(text, clip)[0].num_tokens for text in ("summary", "pool:2x4x4")]
        [16, 68]
    """
    if text == "all":
        return grid, None
    found = _WINDOW.fullmatch(text)
    sides = tuple(int(side or 1) for side in found.groups()) if found else ()
    if text == "summary":
        sides = (1 if grid.is_prefix_per_step else grid.time, grid.height, grid.width)
    if not sides or 0 in sides:
        raise UsageError(
            "--tokens",
            f"{text[:60]!r} is not a token policy",
            "use all, pool:2x2, pool:1x2x2 or summary",
        )
    window = (min(sides[0], grid.time), min(sides[1], grid.height), min(sides[2], grid.width))
    shorter = grid.with_time(-(-grid.time // window[0]))
    height, width = -(-grid.height // window[1]), -(-grid.width // window[2])
    return replace(shorter, height=height, width=width), window
