"""Clips by decord, which counts frames and does not look at them: so what it gives is checked.

decord 0.6.0 substitutes frames in three ways: by the last good one, by an earlier one when it has
to begin again, and by its neighbour when the decoder has left a frame out. The first two are
switched off (``fault_tol``, ``DECORD_REWIND_RETRY_MAX``). Against the third every stretch of frames
is decoded up to the next key frame and beyond it by one: where nothing was lost, that one is the
same picture as comes of jumping to the key frame, of which decord does compare the time stamp. The
last stretch must end where the file does.

Kept to besides: one thread, one reader for a file, opened by the process that uses it (after a fork
it hangs), and sent back to the start when done, since its thread otherwise decodes ahead.
"""

from __future__ import annotations

import hashlib
import os
import re
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import UInt8

from losa.extract.clips.clip import (
    ClipInfo,
    Effort,
    Frames,
    check_request,
    checked_info,
    missing_frame,
)
from losa.extract.clips.containers import Container
from losa.extract.images import ImageError, ImageStatus

# Read once, when the library loads. -1: never begin again in order to fill a gap.
os.environ.update(
    DECORD_REWIND_RETRY_MAX="-1",
    DECORD_EOF_RETRY_MAX="10240",
    DECORD_DUPLICATE_WARNING_THRESHOLD="2",
    DECORD_AVIO_BUFFER_SIZE="40960",
)

import decord

NAME: Final = f"decord {decord.__version__}"

ZERO_TOLERANCE: Final = 1e-6
"""Of frames that may be substituted. 0 would be taken for "any number", and 1 for one."""

_NO_DECODER: Final = "-1128613112"
_NO_STREAM: Final = "-1381258232"
"""FFmpeg's AVERROR_DECODER_NOT_FOUND and AVERROR_STREAM_NOT_FOUND, all that decord tells."""

_SKIP: Final = 100
"""Frames skipped at a time: decord takes 128 things that are none for frames, behind the end."""

_FAULTS: Final = (
    decord.DECORDError,
    decord.DECORDLimitReachedError,
    AssertionError,
    RuntimeError,
    StopIteration,
)
"""What decord raises over a file; its second error is none of its first."""

Picture = UInt8[np.ndarray, "h w 3"]


class DecordReader:
    """One open file.

    Args:
        path: its name, for messages.
        place: what FFmpeg opens: a path of ours, for it concludes things from names.
        container: what its bytes say that it is.

    Raises:
        ImageError: it holds no video that can be decoded.
    """

    def __init__(self, path: Path, place: str, container: Container) -> None:
        self._path = path
        self._digests: dict[int, bytes] = {}
        decord.logging.set_level(decord.logging.QUIET)
        try:
            self._video: Any = decord.VideoReader(
                place, ctx=decord.cpu(0), num_threads=1, fault_tol=ZERO_TOLERANCE
            )
            self._frames = len(self._video)
            self._keys = self._possible_keys()
            rate = float(self._video.get_avg_fps())
            height, width = self._next(0).shape[:2]
        except _FAULTS as error:
            raise _unopened(path, error, container) from None
        rate = 0.0 if np.isnan(rate) else rate
        info = ClipInfo(self._frames, rate, width, height, container.codec)
        self.info = checked_info(path, info)

    def frames_at(self, indices: Sequence[int]) -> Frames:
        """The frames of these numbers; see ``ClipReader``."""
        check_request(self._path, self.info, indices)
        found: dict[int, Picture] = {}
        wanted = sorted(set(indices))
        effort = Effort(self._path, len(wanted))
        try:
            while wanted:
                stop = self._stretch(wanted, found, effort)
                wanted = [index for index in wanted if index >= stop]
            self._video.seek(0)
        except _FAULTS as error:
            raise missing_frame(self._path, wanted[0], _one_line(error)) from None
        shape = (0, self.info.height, self.info.width, 3)
        return np.stack([found[index] for index in indices]) if indices else np.zeros(shape, "u1")

    def close(self) -> None:
        """Let go of the file, whose reader ends with its last reference."""
        self._video = None

    def _possible_keys(self) -> list[int]:
        """Where a stretch may begin: at frame 0, and at key frames if time stamps tell frames."""
        self._marks = sorted(map(int, self._video.get_key_indices()))
        try:
            starts = self._video.get_frame_timestamp(range(self._frames))[:, 0]
        except IndexError:
            # Nothing of the stream was found, and the number of its frames is a guess.
            raise ImageError(self._path, ImageStatus.CORRUPT, "has no frames") from None
        if self._frames > 1 and not (np.diff(starts) > 0).all():
            return [0]
        return sorted({0, *self._marks})

    def _stretch(self, wanted: Sequence[int], found: dict[int, Picture], effort: Effort) -> int:
        """Decode from a key frame to the next one; what follows the frames that were found."""
        start, picture = self._start(wanted[0])
        following = bisect_right(self._keys, start)
        behind = self._keys[following] if following < len(self._keys) else self._frames
        if 0 < start == wanted[0] and (len(wanted) == 1 or wanted[1] >= behind):
            # Its time stamp was compared: there is nothing to count.
            effort.spend()
            found[start] = picture
            return start + 1
        stop = self._stop(start)
        effort.spend(stop - start)
        try:
            held, last = self._run(start, stop, wanted)
        except _FAULTS:
            if start == 0:
                raise
            # It may need what comes before it, as in open groups of pictures.
            self._keys.remove(start)
            return wanted[0]
        if stop < self._frames and _digest(last) != self._digests[stop]:
            # Frames were lost, or this key frame looks different when frames come before it:
            # the one behind it tells, or the end of the file.
            self._keys.remove(stop)
            return wanted[0]
        found.update(held)
        return stop

    def _start(self, index: int) -> tuple[int, Picture]:
        """The last key frame up to a frame, and its picture."""
        while True:
            key = self._keys[bisect_right(self._keys, index) - 1]
            picture = self._landed(key)
            if picture is not None:
                return key, picture
            self._keys.remove(key)

    def _stop(self, start: int) -> int:
        """The next key frame that can be jumped to; else the number of all frames."""
        for key in self._keys[bisect_right(self._keys, start) :]:
            if key in self._digests or self._landed(key) is not None:
                return key
            self._keys.remove(key)
        return self._frames

    def _landed(self, key: int) -> Picture | None:
        """Jump to a key frame; ``None``: the frame of that number is none, or not alone.

        Key frames of open groups of pictures bear the numbers that they have when decoded.
        """
        self._video.seek(0)
        if key == 0:
            return self._next(0)
        try:
            self._video.seek_accurate(key)
            # Where its time stamp was that of the frame, decord holds and counts it already.
            if _position(self._video) != key + 1:
                return None
            picture = _colours(self._video.next().asnumpy())
        except _FAULTS:
            return None
        self._digests[key] = _digest(picture)
        return picture

    def _run(
        self, start: int, stop: int, wanted: Sequence[int]
    ) -> tuple[dict[int, Picture], Picture]:
        """Frames of a stretch that are wanted, counted from its first one, and its very last."""
        picture = self._landed(start)
        assert picture is not None
        end = min(stop, self._frames - 1)
        held = {start: picture}
        at = start + 1
        for target in sorted({*(index for index in wanted if start < index < end), end}):
            while at <= target:
                at += self._skipped(at, target)
                picture = self._next(at)
                at += 1
            held[target] = picture
        return {index: held[index] for index in wanted if index in held and index < stop}, picture

    def _skipped(self, at: int, target: int) -> int:
        """Decode frames without looking at them, short of a target; how many."""
        place = bisect_right(self._marks, at)
        # Across a key frame decord would jump to it, wherever it takes it to be; and behind the
        # end of its stream it counts on without a frame, and then waits for ever.
        mark = self._marks[place] if place < len(self._marks) else self._frames
        count = min(target - at, mark - 1 - at, _SKIP)
        if count > 0:
            self._video.skip_frames(count)
        return max(count, 0)

    def _next(self, at: int) -> Picture:
        """The next frame, where it is the one of this number."""
        picture = _colours(self._video.next().asnumpy())
        if _position(self._video) != at + 1:
            raise missing_frame(self._path, at, "decord has another in its place")
        return picture


def _colours(raw: np.ndarray) -> Picture:
    """A frame's three colours: of narrow ones decord takes the padding of its rows for more."""
    height, width, found = raw.shape
    rows = raw.reshape(height, width * found)[:, : 3 * width]
    return np.ascontiguousarray(rows).reshape(height, width, 3)


def _position(video: Any) -> int:
    """Frames that a reader has counted since the beginning of its file."""
    # decord has no public name for it.
    ask = decord.video_reader._CAPI_VideoReaderGetCurrentPosition  # noqa: SLF001 -- see above
    return int(ask(video._handle))  # noqa: SLF001 -- see above


def _digest(picture: Picture) -> bytes:
    """What two pictures share if they are the same."""
    return hashlib.sha256(picture.tobytes()).digest()


def _unopened(path: Path, error: Exception, container: Container) -> ImageError:
    """What a file comes to that decord does not open."""
    text = str(error)
    if _NO_STREAM in text:
        return ImageError(path, ImageStatus.FORMAT, "holds no video")
    if _NO_DECODER in text:
        codec = container.codec or "a codec"
        what = f"holds {codec}, which {NAME} does not decode (--decoder pyav may)"
        return ImageError(path, ImageStatus.FORMAT, what)
    return ImageError(path, ImageStatus.CORRUPT, f"cannot be decoded ({_one_line(error)})")


def _one_line(error: BaseException) -> str:
    """What decord says, without its clock, its source lines and the path that it opened."""
    if isinstance(error, StopIteration):
        return "the file ends before it"
    if isinstance(error, decord.DECORDLimitReachedError) or "Unable to handle EOF" in str(error):
        return "its decoder leaves frames out; --decoder pyav may not"
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    text = re.sub(r"^\[[\d:]+\] \S+: |\[?/dev/fd/\d+(\.\.\.|\])?", "", first)
    return " ".join(text.split())
