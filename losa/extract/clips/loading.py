"""From a video file to the pixels of a clip: the frames that its view is of, each as an image is.

All frames of a clip share one crop, one flip and one augmentation, so that what moves is what moved
before. A view of a train sample also begins elsewhere: the jitter in time comes from the view's
seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from fractions import Fraction
from typing import Final

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from losa.extract.clips.clip import ClipInfo
from losa.extract.clips.readers import open_clip
from losa.extract.images import ImageError, ImageStatus, as_seen
from losa.extract.media import Media, Span
from losa.extract.sampling import CENTRE, ClipSampling
from losa.extract.transforms import Preprocessing

_START: Final = b"start"
"""What makes of a view's seed another one: of the seed itself its picture is drawn."""


def load_clip(
    media: Media, preprocessing: Preprocessing, opened_ns: int | None = None
) -> UInt8[np.ndarray, "t h w 3"]:
    """Pixels of a clip, resized and cropped, not yet normalised.

    Args:
        media: the video, the part of it that is meant, and which view.
        preprocessing: how frames are chosen, and what each goes through.
        opened_ns: as for images: a file written after this time has changed under the run.

    Raises:
        ImageError: the file is missing, is no regular file, or lacks a frame that is needed.
    """
    clip = preprocessing.clip
    assert clip is not None
    place, side = view_place(clip, media)
    with closing(open_clip(media.path, clip.decoder, opened_ns)) as video:
        first, count = part_of(video.info, media)
        if clip.short == "fail" and count < clip.needed:
            what = f"has {count} frames, and {clip.needed} are needed"
            raise ImageError(media.path, ImageStatus.SHORT, what)
        wanted = [first + index for index in clip.indices(count, place)]
        frames = video.frames_at(wanted)
    return _clip_pixels(wanted, frames, media, preprocessing, side)


def view_place(clip: ClipSampling, media: Media) -> tuple[Fraction, Fraction | None]:
    """Where a view lies in time, and along the longer side: ``None``: wherever its policy says."""
    if media.policy:
        drawn = hashlib.sha256(media.view_seed.to_bytes(8) + _START).digest()[:8]
        return Fraction(int.from_bytes(drawn), 2**64), None
    if media.is_trained_on or media.view >= clip.test_views:
        return CENTRE, None
    place, side = clip.test_view(media.view)
    return place, side if clip.crops > 1 else None


def part_of(info: ClipInfo, media: Media) -> tuple[int, int]:
    """First frame of a clip, and how many it has, in its file.

    Raises:
        ImageError: the video ends before the clip begins, or has no frame rate to find it by.
    """
    if media.span is None:
        return 0, info.frames
    if media.span.unit == "seconds" and info.fps <= 0:
        what = "does not say how many frames it shows a second, and the clip is told in seconds"
        raise ImageError(media.path, ImageStatus.CORRUPT, what)
    first, stop = frame_range(media.span, info.fps)
    stop = min(stop, info.frames)
    if first >= stop:
        what = f"has {info.frames} frames, and the clip begins at frame {first}"
        raise ImageError(media.path, ImageStatus.CORRUPT, what)
    return first, stop - first


def frame_range(span: Span, fps: float) -> tuple[int, int]:
    """First frame of a part of a video, and the one behind its last; one frame at least.

    Example:
        >>> frame_range(Span(1.0, 2.5), 30.0), frame_range(Span(8.0, 32.0, "frames"), 30.0)
        ((30, 75), (8, 32))
    """
    rate = fps if span.unit == "seconds" else 1.0
    first = round(span.start * rate)
    return first, max(first + 1, round(span.stop * rate))


def _clip_pixels(
    wanted: Sequence[int],
    frames: UInt8[np.ndarray, "t ... 3"],
    media: Media,
    preprocessing: Preprocessing,
    side: Fraction | None,
) -> UInt8[np.ndarray, "t h w 3"]:
    """Treat every frame as an image; a frame that a short clip repeats, once."""
    out = np.empty(preprocessing.shape, np.uint8)
    done: dict[int, int] = {}
    for position, index in enumerate(wanted):
        if index in done:
            out[position] = out[done[index]]
            continue
        done[index] = position
        image = Image.fromarray(frames[position])
        out[position] = as_seen(image, media, preprocessing, side)
    return out
