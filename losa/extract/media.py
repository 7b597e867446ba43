"""Where the bytes of a sample are: a file of its own, or a piece of a larger one.

A piece is a member of a tar archive, a cell of an Arrow file or an array of raw pixels: whatever
kind of data set it comes from, a decode worker needs to know no more than this. A clip may be a
part of a longer video, from one time to another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a video: from ``start`` up to but without ``stop``.

    In seconds from its beginning, or in frames counted from 0.
    """

    start: float
    stop: float
    unit: Literal["seconds", "frames"] = "seconds"


@dataclass(frozen=True, slots=True)
class Media:
    """One encoded image, one array of raw pixels, or one clip.

    Args:
        path: the file.
        offset: where in the file it begins.
        size: its bytes; ``None``: all of the file.
        shape: height, width and channels (1 or 3) of raw 8-bit pixels; ``None``: it is encoded.
        view: 0 is the clean image; others are augmented, or are test views of a clip.
        view_seed: what the augmentation of this view is drawn from.
        policy: how this view is augmented; view 0 has none, nor has a test view.
        span: the part of a video that is the clip; ``None``: all of it.
        is_trained_on: whether its clean view is the middle of its clip, whatever test views the
            clips of other splits have, of which their view 0 is one.
    """

    path: Path
    offset: int = 0
    size: int | None = None
    shape: tuple[int, int, int] | None = None
    view: int = 0
    view_seed: int = 0
    policy: str = ""
    span: Span | None = None
    is_trained_on: bool = False

    def as_view(self, view: int, seed: int, policy: str) -> Media:
        """An augmented view of the same image or clip."""
        return replace(self, view=view, view_seed=seed, policy=policy)

    def as_test_view(self, view: int) -> Media:
        """Another test view of the same clip: see ``ClipSampling.test_view``."""
        return replace(self, view=view)


def as_media(place: Path | Media) -> Media:
    """A path is a file of its own."""
    return place if isinstance(place, Media) else Media(place)
