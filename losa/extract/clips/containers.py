"""What a file of video is, told from its own bytes before any decoder sees it.

Decoders guess from contents and names, and some of their guesses open other files or the network:
playlists, lists of files, patterns of images. Four containers are taken, found by their first
bytes; everything else is refused here. What the container says of its codec and its size is read
too, because decord tells neither and a picture of 16k x 16k should be refused before it is decoded.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from losa.extract.images import ImageError, ImageStatus

Kind = Literal["mov", "matroska", "avi", "mpegts"]
"""A container by the name of FFmpeg's demuxer."""

KINDS: Final = "mp4/mov, matroska/webm, avi, mpeg-ts"
HEAD_BYTES: Final = 1024
HEADERS_BYTES: Final = 2**18
"""How far behind its beginning a Matroska or AVI file describes its tracks."""
INDEX_BYTES: Final = 2**24
"""How much of an mp4 file's index is searched for its first video track."""
MAX_BOXES: Final = 100_000
BOX_HEAD_BYTES: Final = 8
ENTRY_BYTES: Final = 36
"""Of a sample entry, up to and with its width and height."""
MAX_VINT_BYTES: Final = 8
FIRST_BOX_BYTES: Final = 2**24
"""A first box of text would have a length of letters, which is more."""

_PRINTED: Final = frozenset([*b"\r\n\t\f", *range(32, 127)])
_WRITTEN: Final = _PRINTED | frozenset(range(128, 256))

_MOV_BOXES: Final = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_IMAGE_BRANDS: Final = (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis", b"jxl ", b"crx ")
_SYNC: Final = 0x47
_TS_PACKETS: Final = ((0, 188), (4, 192))
_FOREIGN: Final = {
    b"#EXTM3U": "is a playlist",
    b"ffconcat": "is a list of files",
    b"\xff\xd8\xff": "is an image",
    b"\x89PNG": "is an image",
    b"GIF8": "is an image",
    b"BM": "is an image",
    b"II*\x00": "is an image",
    b"MM\x00*": "is an image",
}
_MOV_CODECS: Final = {
    b"avc1": "h264",
    b"avc3": "h264",
    b"hvc1": "hevc",
    b"hev1": "hevc",
    b"vp08": "vp8",
    b"vp09": "vp9",
    b"av01": "av1",
    b"mp4v": "mpeg4",
    b"jpeg": "mjpeg",
    b"mjpa": "mjpeg",
    b"apch": "prores",
    b"apcn": "prores",
    b"ap4h": "prores",
}
_MATROSKA_CODECS: Final = {
    b"V_MPEG4/ISO/AVC": "h264",
    b"V_MPEGH/ISO/HEVC": "hevc",
    b"V_VP8": "vp8",
    b"V_VP9": "vp9",
    b"V_AV1": "av1",
    b"V_MPEG4/ISO/ASP": "mpeg4",
    b"V_MJPEG": "mjpeg",
}
_AVI_CODECS: Final = {
    b"XVID": "mpeg4",
    b"DIVX": "mpeg4",
    b"DX50": "mpeg4",
    b"FMP4": "mpeg4",
    b"H264": "h264",
    b"X264": "h264",
    b"MJPG": "mjpeg",
}


@dataclass(frozen=True, slots=True)
class Container:
    """What the bytes of a file say that it is.

    Args:
        kind: its container.
        codec: of its first video track, as FFmpeg calls it; empty where the container hides it.
        width: of that track as stored, in pixels; 0 where the container hides it.
        height: likewise.
        is_cut: it says that it is longer than the file.
        has_video: ``False``: it has tracks, and none of them is video.
    """

    kind: Kind
    codec: str = ""
    width: int = 0
    height: int = 0
    is_cut: bool = False
    has_video: bool = True


def recognised(path: Path, descriptor: int) -> Container:
    """Which of four containers an open file is, and what it says of its first video track.

    Args:
        path: its name, for messages alone: nothing is concluded from it.
        descriptor: the file, whose position stays as it is.

    Raises:
        ImageError: it is none of them, or an mp4 file without its index.
    """
    head = os.pread(descriptor, HEAD_BYTES, 0)
    size = os.fstat(descriptor).st_size
    if _is_mov(head):
        if head[4:8] == b"ftyp" and head[8:12] in _IMAGE_BRANDS:
            raise ImageError(path, ImageStatus.FORMAT, f"is an image, not one of {KINDS}")
        return _mov(path, descriptor, size)
    if head.startswith(b"\x1a\x45\xdf\xa3") and re.search(rb"\x42\x82.(webm|matroska)", head):
        return _matroska(os.pread(descriptor, HEADERS_BYTES, 0), size)
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return _avi(os.pread(descriptor, HEADERS_BYTES, 0), size)
    if any(_is_transport_stream(head, *step) for step in _TS_PACKETS):
        return Container("mpegts")
    raise ImageError(path, ImageStatus.FORMAT, f"{_foreign(head)}, not one of {KINDS}")


def _is_mov(head: bytes) -> bool:
    """Whether a file begins with a box of QuickTime's kind, of a length that makes sense."""
    if len(head) < BOX_HEAD_BYTES or head[4:8] not in _MOV_BOXES:
        return False
    length = int.from_bytes(head[:4], "big")
    is_short = BOX_HEAD_BYTES <= length < FIRST_BOX_BYTES
    return length in (0, 1) or is_short or head[4:8] == b"mdat"


def _is_transport_stream(head: bytes, first: int, step: int) -> bool:
    """Whether three packets follow each other; letters alone are a text that looks like it."""
    syncs = [head[place] for place in range(first, min(len(head), first + 3 * step), step)]
    return syncs == [_SYNC] * 3 and not _PRINTED.issuperset(head)


def _foreign(head: bytes) -> str:
    """What a file is that is none of ours, as far as a message goes."""
    for start, what in _FOREIGN.items():
        if head.startswith(start):
            return what
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "is an image"
    return "is text" if _WRITTEN.issuperset(head) else "is no video"


def _boxes(descriptor: int, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, first byte of the contents and end of every box at the top of an mp4 file."""
    place = 0
    for _ in range(MAX_BOXES):
        head = os.pread(descriptor, 16, place)
        if len(head) < BOX_HEAD_BYTES:
            return
        length, start = int.from_bytes(head[:4], "big"), place + 8
        if length == 1:
            length, start = int.from_bytes(head[8:16], "big"), place + 16
        end = size if length == 0 else place + length
        if end < start:
            return
        yield head[4:8], start, end
        place = end


def _mov(path: Path, descriptor: int, size: int) -> Container:
    """An mp4 or QuickTime file; ISO/IEC 14496-12, sections 4.2 and 8.5."""
    boxes = list(_boxes(descriptor, size))
    is_cut = any(end > size for _, _, end in boxes)
    index = next((box for box in boxes if box[0] == b"moov"), None)
    if index is None:
        what = "is cut short: its index (moov) is not there" if is_cut else "has no index (moov)"
        raise ImageError(path, ImageStatus.CORRUPT, what)
    data = os.pread(descriptor, min(index[2] - index[1], INDEX_BYTES), index[1])
    if not re.search(rb"hdlr.{8}vide", data, re.DOTALL):
        return Container("mov", is_cut=is_cut, has_video=len(data) == INDEX_BYTES)
    for found in re.finditer(rb"stsd", data):
        entry = data[found.end() + 8 : found.end() + 8 + ENTRY_BYTES]
        codec = _MOV_CODECS.get(entry[4:8], "")
        if codec and len(entry) == ENTRY_BYTES:
            width, height = struct.unpack(">HH", entry[32:36])
            return Container("mov", codec, width, height, is_cut)
    return Container("mov", is_cut=is_cut)


def _matroska(data: bytes, size: int) -> Container:
    """A Matroska or WebM file; RFC 9559, sections 5.1.2 (segment) and 5.1.4 (tracks)."""
    length, start = _vint(data, 4)
    segment = start + length
    ends = size
    if data[segment : segment + 4] == b"\x18\x53\x80\x67":
        length, start = _vint(data, segment + 4)
        ends = start + length if length >= 0 else size
    named = re.search(rb"\x86[\x84-\xa0](V_[A-Z0-9/_]{2,30})", data)
    sides = re.search(rb"\xb0(\x81.|\x82..)\xba(\x81.|\x82..)", data, re.DOTALL)
    width, height = (
        (int.from_bytes(side[1:], "big") for side in sides.groups()) if sides else (0, 0)
    )
    codec = ""
    if named:
        codec = next((ours for id_, ours in _MATROSKA_CODECS.items() if named[1] == id_), "")
    is_told = b"\x16\x54\xae\x6b" in data and len(data) == HEADERS_BYTES
    return Container(
        "matroska", codec, width, height, ends > size, has_video=bool(named) or not is_told
    )


def _vint(data: bytes, place: int) -> tuple[int, int]:
    """A length of EBML and the place behind it; -1: unknown (RFC 8794, section 4)."""
    first = data[place] if place < len(data) else 0
    width = 9 - first.bit_length()
    if width > MAX_VINT_BYTES:
        return -1, place
    raw = int.from_bytes(data[place : place + width], "big")
    value = raw & (1 << 7 * width) - 1
    return (-1 if value == (1 << 7 * width) - 1 else value), place + width


def _avi(data: bytes, size: int) -> Container:
    """An AVI file: RIFF chunks, of which ``avih`` and the first ``strh`` of video matter."""
    length = int.from_bytes(data[4:8], "little")
    is_cut = 0 < length < 2**32 - 1 and length + 8 > size
    main = re.search(rb"avih.{4}.{32}(.{4})(.{4})", data, re.DOTALL)
    width, height = (int.from_bytes(s, "little") for s in main.groups()) if main else (0, 0)
    track = re.search(rb"strh.{4}vids(.{4})", data, re.DOTALL)
    codec = _AVI_CODECS.get(track[1].upper(), "") if track else ""
    return Container("avi", codec, width, height, is_cut, has_video=bool(track))
