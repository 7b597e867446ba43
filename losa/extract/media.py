"""Where the bytes of a sample are: a file of its own, or a piece of a larger one.

A piece is a member of a tar archive, a cell of an Arrow file or an array of raw pixels: whatever
kind of data set it comes from, a decode worker needs to know no more than this.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Media:
    """One encoded image, or one array of raw pixels.

    Args:
        path: the file.
        offset: where in the file it begins.
        size: its bytes; ``None``: all of the file.
        shape: height, width and channels (1 or 3) of raw 8-bit pixels; ``None``: it is encoded.
        view: 0 is the clean image; others are augmented.
        view_seed: what the augmentation of this view is drawn from.
        policy: how this view is augmented; view 0 has none.
    """

    path: Path
    offset: int = 0
    size: int | None = None
    shape: tuple[int, int, int] | None = None
    view: int = 0
    view_seed: int = 0
    policy: str = ""

    def as_view(self, view: int, seed: int, policy: str) -> Media:
        """An augmented view of the same image."""
        return replace(self, view=view, view_seed=seed, policy=policy)


def as_media(place: Path | Media) -> Media:
    """A path is a file of its own."""
    return place if isinstance(place, Media) else Media(place)
