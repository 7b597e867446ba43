"""What every decoder of clips keeps to: what it tells of a clip, what it gives, and its limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from losa.extract.images import MAX_PIXELS, TOO_LARGE, ImageError, ImageStatus

MAX_CLIP_PIXELS: Final = 1_000_000_000
"""Pixels of all the frames that one request may ask for: 3 GB."""

MAX_FRAMES: Final = 4_000_000
"""Frames of a file: ten hours of a hundred a second."""

MAX_FPS: Final = 1000.0

KEY_DISTANCE: Final = 1000
"""Frames that may have to be decoded for each one that is asked for."""

Frames = UInt8[np.ndarray, "t h w 3"]


@dataclass(frozen=True, slots=True)
class ClipInfo:
    """What a file says of its video.

    Args:
        frames: how many it has, or says that it has: of a file that was cut short, fewer can be
            had.
        fps: frames a second, on average; 0: the file does not say.
        width: of a frame as it is shown, in pixels.
        height: likewise.
        codec: as FFmpeg calls it; empty: unknown.
    """

    frames: int
    fps: float
    width: int
    height: int
    codec: str


@runtime_checkable
class ClipReader(Protocol):
    """One open file of video."""

    @property
    def info(self) -> ClipInfo:
        """What the file says of its video."""

    def frames_at(self, indices: Sequence[int]) -> Frames:
        """The frames of these numbers, counted from 0 as they are shown, in the order given.

        Args:
            indices: of frames; a number may come more than once.

        Returns:
            Frames as they are shown, turned by their metadata.

        Raises:
            ImageError: one of them cannot be had; never another in its place.
        """

    def close(self) -> None:
        """Let go of the file.

        Raises:
            ImageError: it was written while it was open.
        """


def checked_info(path: Path, info: ClipInfo) -> ClipInfo:
    """What a file says, where that makes sense and is not too much.

    Raises:
        ImageError: it has no frames, too many, too large ones or too many a second.
    """
    if info.frames < 1:
        raise ImageError(path, ImageStatus.CORRUPT, "has no frames")
    if info.frames > MAX_FRAMES:
        what = f"says it has {info.frames} frames, more than {MAX_FRAMES}"
        raise ImageError(path, ImageStatus.TOO_LARGE, what)
    if not (math.isfinite(info.fps) and 0 <= info.fps <= MAX_FPS):
        what = f"says it shows {info.fps:g} frames a second, more than {MAX_FPS:g}"
        raise ImageError(path, ImageStatus.CORRUPT, what)
    if info.width < 1 or info.height < 1:
        raise ImageError(path, ImageStatus.CORRUPT, "has frames without pixels")
    check_size(path, info.width, info.height)
    return info


def check_size(path: Path, width: int, height: int) -> None:
    """Refuse frames of more pixels than an image may have.

    Raises:
        ImageError: they have, or they have none.
    """
    if width * height > MAX_PIXELS:
        raise ImageError(path, ImageStatus.TOO_LARGE, TOO_LARGE)


def check_request(path: Path, info: ClipInfo, indices: Sequence[int]) -> None:
    """Refuse to look for frames that the file does not say it has, or for too many.

    Raises:
        ImageError: a number is beyond the last frame, or the frames are too many for memory.
    """
    beyond = next((index for index in indices if not 0 <= index < info.frames), None)
    if beyond is not None:
        what = f"has no frame {beyond}: it has {info.frames}"
        raise ImageError(path, ImageStatus.DAMAGED, what)
    if len(indices) * info.width * info.height > MAX_CLIP_PIXELS:
        what = f"has frames too large for {len(indices)} at once"
        raise ImageError(path, ImageStatus.TOO_LARGE, what)


class Effort:
    """How many frames may still be decoded for one request.

    Args:
        path: the file, for messages.
        wanted: different frames that are asked for.
    """

    def __init__(self, path: Path, wanted: int) -> None:
        self._path = path
        self._wanted = wanted
        self._left = wanted * KEY_DISTANCE

    def spend(self, frames: int = 1) -> None:
        """Count frames that are decoded.

        Raises:
            ImageError: they are more than ``KEY_DISTANCE`` for each one wanted.
        """
        self._left -= frames
        if self._left < 0:
            what = (
                f"has key frames too far apart: {self._wanted} frames take more than "
                f"{self._wanted * KEY_DISTANCE} decoded ones"
            )
            raise ImageError(self._path, ImageStatus.TOO_LARGE, what)


def missing_frame(path: Path, index: int, why: str) -> ImageError:
    """What a frame comes to that the file should have and that cannot be decoded."""
    return ImageError(path, ImageStatus.DAMAGED, f"frame {index} cannot be decoded ({why})")
