"""What a file is, told by its bytes: hand-made headers, and those of real clips."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from losa.extract.clips.containers import Container, recognised
from losa.extract.images import ImageError
from tests.extract.clips.golden_clips import HEIGHT, WIDTH


def told(path: Path) -> Container:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return recognised(path, descriptor)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("name", "kind", "codec"),
    [
        ("h264.mp4", "mov", "h264"),
        ("hevc.mp4", "mov", "hevc"),
        ("av1.mp4", "mov", "av1"),
        ("mpeg4-b.mp4", "mov", "mpeg4"),
        ("vp9.webm", "matroska", "vp9"),
        ("variable.mkv", "matroska", "h264"),
        ("mpeg4.avi", "avi", "mpeg4"),
    ],
)
def test_a_container_tells_codec_and_size(golden: Path, name: str, kind: str, codec: str) -> None:
    found = told(golden / name)
    assert (found.kind, found.codec, found.is_cut) == (kind, codec, False)
    assert (found.width, found.height) == (WIDTH, HEIGHT)
    assert found.has_video


def test_a_transport_stream_hides_its_codec(golden: Path) -> None:
    assert told(golden / "h264.ts") == Container("mpegts")


@pytest.mark.parametrize("name", ["h264.mp4", "vp9.webm", "mpeg4.avi"])
def test_a_file_shorter_than_its_container_says_is_cut(
    golden: Path, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes((golden / name).read_bytes()[:-100])
    assert told(path).is_cut


def test_an_mp4_file_needs_its_index(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"\x00\x00\x00\x10ftypisom\x00\x00\x00\x00" + b"\x00\x00\x00\x0amdat..")
    with pytest.raises(ImageError, match="has no index"):
        told(path)
    path.write_bytes(b"\x00\x00\x00\x10ftypisom\x00\x00\x00\x00" + b"\x00\x00\xff\xffmdat..")
    with pytest.raises(ImageError, match="is cut short"):
        told(path)
