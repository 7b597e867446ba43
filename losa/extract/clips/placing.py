"""Where the videos of a listing lie: of the usual ways to name their files, the one that is used.

Many a listed video is gone from where it was published. Those too are given the path that they
would have, so that a listing does not depend on which of its videos are here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from losa.errors import InputError

Named = TypeVar("Named")
Pattern = Callable[[Named], str]
"""The path below the root that a line's video would have."""

TRIED: Final = 512
"""Lines whose files are looked for, spread over the listing."""


def used_pattern(
    root: Path, lines: Sequence[Named], patterns: Sequence[Pattern[Named]]
) -> Pattern[Named]:
    """The pattern by which most files of a listing are here; of equal ones the first.

    Args:
        root: the folder that paths lie below.
        lines: of the listing.
        patterns: ways to name a file.

    Raises:
        InputError: no file is here by any of them.
    """
    step = max(1, len(lines) // TRIED)
    tried = lines[::step]
    hits = [sum(_is_here(root / pattern(line)) for line in tried) for pattern in patterns]
    if not any(hits):
        shown = " or ".join(pattern(lines[0]) for pattern in patterns[:2])
        what = f"holds none of {len(tried)} listed videos that were looked for"
        raise InputError(root, what, f"put them there, such as {shown}")
    return patterns[hits.index(max(hits))]


def _is_here(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
