"""Clips whose frames bear their numbers, as codes of large blocks that any codec keeps."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8

WIDTH, HEIGHT = 96, 64
BITS = 8

X264 = {"preset": "veryfast", "bf": "3", "b-adapt": "0", "sc_threshold": "0"}
X265 = {"preset": "ultrafast"}
X265_PARAMS = "log-level=none:pools=none:frame-threads=1:bframes=3"


@dataclass(frozen=True)
class Golden:
    """How a clip is made, and what is true of it."""

    codec: str
    frames: int
    key_every: int = 250
    options: Mapping[str, str] = field(default_factory=dict)
    pixels: str = "yuv420p"
    b_frames: int | None = None
    is_variable: bool = False


def _x265(more: str = "") -> dict[str, str]:
    return {**X265, "x265-params": X265_PARAMS + more}


GOLDEN = {
    "h264.mp4": Golden("libx264", 100, options=X264),
    "h264-groups.mov": Golden("libx264", 60, 12, X264),
    "h264-open.mp4": Golden("libx264", 60, 12, {**X264, "x264-params": "open-gop=1"}),
    "h264-422.mkv": Golden("libx264", 20, 12, X264, "yuv422p"),
    "h264.ts": Golden("libx264", 40, 20, {**X264, "bf": "0"}),
    "h264-b.ts": Golden("libx264", 40, 20, X264),
    "hevc.mp4": Golden("libx265", 60, 250, _x265()),
    "hevc-open.mkv": Golden("libx265", 60, 12, _x265(":open-gop=1")),
    "hevc-10.mp4": Golden("libx265", 20, 12, _x265(), "yuv420p10le"),
    "vp9.webm": Golden("libvpx-vp9", 40, 20, {"deadline": "realtime", "cpu-used": "8"}),
    "av1.mp4": Golden("libsvtav1", 20, 10, {"preset": "12", "svtav1-params": "lp=1"}),
    "mpeg4.avi": Golden("mpeg4", 40, 12),
    "mpeg4-b.avi": Golden("mpeg4", 40, 12, b_frames=2),
    "mpeg4-b.mp4": Golden("mpeg4", 40, 12, b_frames=2),
    "mjpeg.avi": Golden("mjpeg", 12, pixels="yuvj420p"),
    "variable.mkv": Golden("libx264", 40, 20, X264, is_variable=True),
    "one.mp4": Golden("libx264", 1, options=X264),
    "three.mp4": Golden("libx264", 3, options=X264),
}
"""Containers, codecs, long and short and open groups of pictures, B-frames with and without time
stamps, depths, and lengths."""


def picture(number: int) -> UInt8[np.ndarray, "h w 3"]:
    """A frame that bears a number, and a block that moves."""
    pixels = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    for bit in range(BITS):
        pixels[8:40, 8 + 10 * bit : 18 + 10 * bit] = 235 if number >> bit & 1 else 20
    left = 3 * number % WIDTH
    pixels[48:, left : left + 8] = (200, 60, 30)
    return pixels


def numbers(frames: UInt8[np.ndarray, "t h w 3"]) -> list[int]:
    """What frames bear."""
    middles = [slice(11 + 10 * bit, 15 + 10 * bit) for bit in range(BITS)]
    return [
        sum(1 << bit for bit, middle in enumerate(middles) if frame[12:36, middle].mean() > 128)
        for frame in frames
    ]


def make(path: Path, how: Golden, drawn: Sequence[UInt8[np.ndarray, "h w 3"]] = ()) -> Path:
    """Encode a clip; of other pictures than numbered ones, where some are given."""
    pictures = drawn or [picture(number) for number in range(how.frames)]
    unit = Fraction(1, 1000) if how.is_variable else Fraction(1, 25)
    steps = np.random.default_rng(3).integers(15, 80, len(pictures))
    stamps = np.cumsum(steps) if how.is_variable else np.arange(len(pictures))
    with av.open(str(path), "w", options=_muxing(path)) as file:
        stream = file.add_stream(how.codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = how.pixels
        context = stream.codec_context
        context.gop_size, context.time_base, context.thread_count = how.key_every, unit, 1
        context.options = dict(how.options)
        if how.b_frames is not None:
            context.max_b_frames = how.b_frames
        for pixels, stamp in zip(pictures, stamps, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = int(stamp), unit
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def _muxing(path: Path) -> dict[str, str]:
    """The index of an mp4 file at its beginning, where a file that is cut short keeps it."""
    return {"movflags": "faststart"} if path.suffix in (".mp4", ".mov") else {}


def make_sound(path: Path) -> Path:
    """Encode a file of sound alone."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=16_000)
        assert isinstance(stream, av.AudioStream)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.rate = 16_000
        for number in range(4):
            sound.pts = 1024 * number
            file.mux(stream.encode(sound))
        file.mux(stream.encode(None))
    return path


def turned(data: bytes, quarters: int) -> bytes:
    """An mp4 file to be shown turned with the clock; ISO/IEC 14496-12, section 8.3.2."""
    one = 1 << 16
    a, b = [(one, 0), (0, one), (-one, 0), (0, -one)][quarters]
    matrix = struct.pack(">9i", a, b, 0, -b, a, 0, 0, 0, 1 << 30)
    plain = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    place = data.index(plain, data.index(b"tkhd"))
    return data[:place] + matrix + data[place + len(plain) :]


def begun_later(data: bytes, seconds: float) -> bytes:
    """An mp4 file whose edit list leaves its beginning away; section 8.6.6."""
    place = data.index(b"elst") + 16
    units = int.from_bytes(data[data.index(b"mdhd") + 16 :][:4], "big")
    media_time = int.from_bytes(data[place : place + 4], "big") + round(seconds * units)
    return data[:place] + media_time.to_bytes(4, "big") + data[place + 4 :]


def mutated_clips(
    sources: Sequence[Path], count: int, seed: int = 0
) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of damaged clips; every kind of damage meets every source in turn."""
    draw = np.random.default_rng(seed)
    kinds = {"cut": _cut, "flipped": _flipped, "burst": _burst, "lying": _lying, "lost": _lost}
    names = list(kinds)
    for number in range(count):
        kind, source = names[number % len(names)], sources[number // len(names) % len(sources)]
        data = kinds[kind](draw, source.read_bytes())
        yield f"{number:03d}-{kind}-{source.name}", data


def _cut(draw: np.random.Generator, data: bytes) -> bytes:
    """Cut anywhere."""
    return data[: draw.integers(1, len(data))]


def _flipped(draw: np.random.Generator, data: bytes) -> bytes:
    """Some bits turned over, anywhere."""
    changed = np.frombuffer(data, np.uint8).copy()
    for place in draw.integers(0, len(data), draw.integers(1, 40)):
        changed[place] ^= 1 << draw.integers(0, 8)
    return changed.tobytes()


def _burst(draw: np.random.Generator, data: bytes) -> bytes:
    """A run of bytes that are others."""
    start = int(draw.integers(len(data) // 4, len(data)))
    end = min(len(data), start + int(draw.integers(1, 600)))
    return data[:start] + draw.bytes(end - start) + data[end:]


def _lying(draw: np.random.Generator, data: bytes) -> bytes:
    """Numbers of the first and the last kilobyte replaced by large, small or any others."""
    changed = bytearray(data)
    numbers_ = [bytes(4), b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\x10\x00"]
    for place in draw.integers(4, 1024, 6):
        at = place if draw.integers(2) else len(data) - 4 - place
        if 4 <= at <= len(data) - 4:
            changed[at : at + 4] = numbers_[draw.integers(4)]
    return bytes(changed)


def _lost(draw: np.random.Generator, data: bytes) -> bytes:
    """A piece taken out, so that all behind it lies elsewhere."""
    start = draw.integers(len(data) // 8, len(data) - 1)
    return data[:start] + data[start + int(draw.integers(1, 400)) :]
