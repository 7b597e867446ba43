"""Clips by PyAV, which brings its own FFmpeg: every frame is known by its time stamp.

All packets are read once for their time stamps; sorted, those are the numbers of frames. A frame
is decoded from the key frame before it, and what comes out is what carries its time stamp: whatever
a decoder leaves out, adds or reorders, a frame is the one that was asked for or none.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.stream import Disposition
from jaxtyping import UInt8

from losa.extract.clips.clip import (
    ClipInfo,
    Effort,
    Frames,
    check_request,
    check_size,
    checked_info,
    missing_frame,
)
from losa.extract.clips.containers import Container
from losa.extract.images import ImageError, ImageStatus

NAME: Final = f"pyav {av.__version__}"

_FAULTS: Final = (av.FFmpegError, OSError, EOFError)
"""What PyAV raises over a file."""

_TURNS: Final = {90: 1, 180: 2, 270: 3}
"""Quarter turns against the clock, as FFmpeg and numpy count them."""


class PyavReader:
    """One open file.

    Args:
        path: its name, for messages.
        place: what FFmpeg opens: a path of ours that leads to the file.
        container: what its bytes say that it is.

    Raises:
        ImageError: it holds no video that can be decoded.
    """

    def __init__(self, path: Path, place: str, container: Container) -> None:
        self._path = path
        self._place = place
        self._kind = container.kind
        self._open()
        try:
            self._index = _Index(path, self._file, self._stream, container)
            self.info = self._told()
        except BaseException:
            self._file.close()
            raise

    def frames_at(self, indices: Sequence[int]) -> Frames:
        """The frames of these numbers; see ``ClipReader``."""
        check_request(self._path, self.info, indices)
        found: dict[int, UInt8[np.ndarray, "h w 3"]] = {}
        wanted = sorted(set(indices))
        if wanted and wanted[-1] >= len(self._index.stamps):
            raise missing_frame(self._path, wanted[-1], self._index.fault)
        effort = Effort(self._path, len(wanted))
        try:
            for start, group in self._index.groups(wanted):
                found.update(self._decoded(start, group, effort))
                left = [index for index in group if index not in found]
                if start and left:
                    # The container may not find its way to where it was sent.
                    found.update(self._decoded(0, left, effort))
        except _FAULTS as error:
            what = next(index for index in wanted if index not in found)
            raise missing_frame(self._path, what, _one_line(error)) from None
        lost = next((index for index in wanted if index not in found), None)
        if lost is not None:
            raise missing_frame(self._path, lost, "its decoder leaves it out")
        shape = (0, self.info.height, self.info.width, 3)
        return np.stack([found[index] for index in indices]) if indices else np.zeros(shape, "u1")

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _open(self) -> None:
        """Open the file at its beginning.

        Raises:
            ImageError: it cannot be opened, or has no video.
        """
        try:
            # Nothing but local files, and no other format than the one found by us: FFmpeg would
            # otherwise follow what the contents name.
            self._file = av.open(
                f"file:{self._place}",
                format=self._kind,
                container_options={"protocol_whitelist": "file"},
                metadata_errors="replace",
            )
        except _FAULTS as error:
            raise _corrupt(self._path, error) from None
        try:
            self._stream = _video_stream(self._path, self._file)
        except ImageError:
            self._file.close()
            raise
        # One thread, as with decord: workers are processes.
        self._stream.codec_context.thread_count = 1

    def _told(self) -> ClipInfo:
        """What the file says of its video, a frame's size as it is shown."""
        context = self._stream.codec_context
        check_size(self._path, context.width, context.height)
        try:
            first = next(self._pictures(0), None)
        except _FAULTS as error:
            raise missing_frame(self._path, 0, _one_line(error)) from None
        if first is None:
            raise missing_frame(self._path, 0, self._index.fault)
        height, width = _upright(first).shape[:2]
        rate = float(self._stream.average_rate or 0)
        info = ClipInfo(self._index.frames, rate, width, height, context.codec.canonical_name)
        return checked_info(self._path, info)

    def _decoded(
        self, start: int, group: Sequence[int], effort: Effort
    ) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
        """Frames of one stretch, decoded from a key frame, each known by its time stamp."""
        left = {self._index.stamps[index]: index for index in group}
        last = max(left)
        size = self.info.width, self.info.height
        if self._index.is_by_order:
            yield from self._counted(left, size, effort)
            return
        for frame in self._pictures(start):
            effort.spend()
            stamp = frame.pts
            index = left.pop(stamp, None) if stamp is not None else None
            if index is not None:
                yield index, self._pixels(frame, index, size)
            if not left or (stamp is not None and stamp > last):
                break

    def _counted(
        self, left: dict[int, int], size: tuple[int, int], effort: Effort
    ) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
        """Frames that nothing but their order names: held back until it is known that none lacks.

        A packet without a picture would otherwise shift all behind it.
        """
        found, count = [], 0
        for frame in self._pictures(0):
            effort.spend()
            if count in left:
                found.append((left[count], self._pixels(frame, left[count], size)))
            count += 1
        if count != len(self._index.stamps):
            what = "its decoder leaves frames out, and nothing numbers them"
            raise missing_frame(self._path, max(left.values()), what)
        yield from found

    def _pixels(
        self, frame: av.VideoFrame, index: int, size: tuple[int, int]
    ) -> UInt8[np.ndarray, "h w 3"]:
        """One frame as it is shown."""
        if frame.is_corrupt:
            raise missing_frame(self._path, index, "its data are damaged")
        check_size(self._path, frame.width, frame.height)
        pixels = _upright(frame)
        if (pixels.shape[1], pixels.shape[0]) != size:
            raise ImageError(self._path, ImageStatus.FORMAT, "changes the size of its frames")
        return pixels

    def _pictures(self, start: int) -> Iterator[av.VideoFrame]:
        """Frames in the order in which they are shown, from that of a key frame on.

        Some come before it: what seeks lands where the container can, and in a transport stream
        that is not always its beginning.
        """
        if start == 0:
            self._file.close()
            self._open()
        else:
            self._file.seek(self._index.stamps[start], stream=self._stream)
        for packet in self._file.demux(self._stream):
            yield from packet.decode()


class _Index:
    """Time stamps of all frames as they are shown, and those of the key frames.

    Where packets have none (AVI files with B-frames), frames are counted from the first one on.

    Args:
        path: the file, for messages.
        file: read to its end.
        stream: the one that counts.
        container: what the file is.
    """

    def __init__(
        self,
        path: Path,
        file: av.container.InputContainer,
        stream: av.VideoStream,
        container: Container,
    ) -> None:
        self.fault = "the file ends before it"
        stamps: list[int | None] = []
        self.keys: list[int] = []
        hidden = 0
        try:
            for packet in file.demux(stream):
                if packet.size == 0:
                    continue
                if packet.is_corrupt:
                    self.fault = "the file is damaged before it"
                    break
                if packet.is_discard:
                    # Edit lists cut it away: it is decoded for the sake of others alone.
                    hidden += 1
                    continue
                stamps.append(packet.pts)
                if packet.is_keyframe and packet.pts is not None:
                    self.keys.append(packet.pts)
        except _FAULTS as error:
            self.fault = _one_line(error)
        known = [stamp for stamp in stamps if stamp is not None]
        # AVI has no presentation times: FFmpeg makes them up from the order of packets.
        self.is_by_order = container.kind == "avi" or len(set(known)) < len(stamps)
        self.stamps = list(range(len(stamps))) if self.is_by_order else sorted(known)
        self.keys = [0] if self.is_by_order else sorted(self.keys)
        declared = stream.frames - hidden if container.kind == "mov" else 0
        self.frames = max(len(stamps), declared)
        if not declared and self.fault != "the file ends before it":
            raise ImageError(path, ImageStatus.DAMAGED, f"cannot be read to its end ({self.fault})")

    def groups(self, wanted: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """Numbers of frames by the key frame from which they are decoded."""
        groups: dict[int, list[int]] = {}
        for index in wanted:
            place = bisect_right(self.keys, self.stamps[index]) - 1
            key = bisect_left(self.stamps, self.keys[place]) if place >= 0 else 0
            groups.setdefault(key, []).append(index)
        yield from groups.items()


def _video_stream(path: Path, file: av.container.InputContainer) -> av.VideoStream:
    """The stream that FFmpeg takes for the video; the cover of a record is none."""
    stream = file.streams.best("video")
    if not isinstance(stream, av.VideoStream) or stream.disposition & Disposition.attached_pic:
        raise ImageError(path, ImageStatus.FORMAT, "holds no video")
    if stream.codec_context is None:
        raise ImageError(path, ImageStatus.FORMAT, f"holds a codec that {NAME} does not decode")
    return stream


def _upright(frame: av.VideoFrame) -> UInt8[np.ndarray, "h w 3"]:
    """8-bit RGB by FFmpeg's scaler, turned as the file's display matrix says."""
    pixels: UInt8[np.ndarray, "h w 3"] = frame.to_ndarray(format="rgb24")
    turns = _TURNS.get(frame.rotation % 360, 0)
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _corrupt(path: Path, error: BaseException) -> ImageError:
    """What a file comes to that cannot be opened."""
    return ImageError(path, ImageStatus.CORRUPT, f"cannot be decoded ({_one_line(error)})")


def _one_line(error: BaseException) -> str:
    """What FFmpeg says, without the path that it opened."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split()) or type(error).__name__
