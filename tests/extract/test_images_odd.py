"""Images as the wild has them: for each there is one stated rule (docs/api.md, ``extract``)."""

from __future__ import annotations

import io
import os
import struct
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from losa.extract import images
from losa.extract.images import (
    CHANGED,
    CLOCK_SLACK_NS,
    TOO_LARGE,
    ImageError,
    ImageStatus,
    load_pixels,
    open_rgb,
)
from losa.extract.media import Media
from tests.extract.mutations import png_chunk, png_of
from tests.extract.odd_decoders import SMALL
from tests.extract.test_images import noise

GREY = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
BODY = png_chunk(b"IDAT", zlib.compress(bytes(8 * 9)))
END = png_chunk(b"IEND", b"")


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def read(folder: Path, data: bytes) -> np.ndarray:
    (folder / "image").write_bytes(data)
    return np.asarray(open_rgb(folder / "image"))


def failure(folder: Path, data: bytes) -> tuple[ImageStatus, str]:
    with pytest.raises(ImageError) as caught:
        read(folder, data)
    return caught.value.code, caught.value.what


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk_is_converted_plainly_whatever_its_profile_says(tmp_path: Path, form: str) -> None:
    ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    plain = read(tmp_path, encoded(ink, form))
    np.testing.assert_array_equal(plain, np.broadcast_to([255, 0, 0], (8, 8, 3)))
    profile = np.random.default_rng(0).bytes(1_500_000)
    np.testing.assert_array_equal(read(tmp_path, encoded(ink, form, icc_profile=profile)), plain)


def test_sixteen_bit_colour_gives_its_upper_bytes(tmp_path: Path) -> None:
    values = np.array([[0x12FF, 0x8000, 0xFFFF], [0x00FF, 0x0100, 0x80FF]], ">u2")
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    data = png_of(header, png_chunk(b"IDAT", zlib.compress(b"\0" + values.tobytes())), END)
    np.testing.assert_array_equal(read(tmp_path, data), [values >> 8])


def test_a_palettes_own_transparency_shows_white_by_degrees(tmp_path: Path) -> None:
    palette = Image.new("P", (3, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60, 0, 0, 0])
    palette.putdata([0, 1, 2])
    found = read(tmp_path, encoded(palette, "PNG", transparency=bytes([0, 255, 51])))
    np.testing.assert_array_equal(found, [[[255, 255, 255], [40, 50, 60], [204, 204, 204]]])


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_of_several_frames_or_pages_the_first_one_is_read(tmp_path: Path, form: str) -> None:
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(data)) as whole:
        assert getattr(whole, "n_frames", 1) == 3
    found = read(tmp_path, data)
    assert np.abs(found.astype(int) - [255, 0, 0]).max() <= 1


def test_exif_behind_the_pixels_of_a_png_turns_them_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(noise((12, 8)), "PNG")
    behind = png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    assert read(tmp_path, data).shape == (8, 12, 3)
    assert read(tmp_path, data.replace(END, behind + END)).shape == (12, 8, 3)


def test_exif_of_any_size_does_not_lose_the_image(tmp_path: Path) -> None:
    large = png_chunk(b"eXIf", b"MM\0*" + bytes(4_000_000))
    assert read(tmp_path, png_of(GREY, large, BODY, END)).shape == (8, 8, 3)


def packed(count: int, kind: bytes = b"zTXt", start: bytes = b"note\0\0") -> bytes:
    """A chunk that unpacks to very much more than it is."""
    return png_chunk(kind, start + zlib.compress(bytes(count), 9))


@pytest.mark.parametrize(
    "chunks",
    [
        [packed(2_000_000), BODY],
        [BODY, packed(2_000_000)],
        [packed(2_000_000, b"iTXt", b"note\0\1\0\0\0"), BODY],
        [packed(2_000_000, b"iCCP"), BODY],
        [*[packed(1_000_000)] * 70, BODY],
    ],
    ids=["before", "behind", "international", "profile", "many"],
)
def test_texts_and_profiles_that_unpack_to_megabytes_are_corrupt(
    tmp_path: Path, chunks: list[bytes]
) -> None:
    code, what = failure(tmp_path, png_of(GREY, *chunks, END))
    assert code == ImageStatus.CORRUPT
    assert "too large" in what or "Too much memory" in what
    assert read(tmp_path, png_of(GREY, packed(900_000), BODY, END)).shape == (8, 8, 3)


def patched(data: bytes, place: int, value: bytes) -> bytes:
    return data[:place] + value + data[place + len(value) :]


def test_a_header_that_promises_more_than_there_is_is_corrupt_or_too_large(tmp_path: Path) -> None:
    plain = Image.new("RGB", (8, 8))
    tall = patched(encoded(plain, "BMP"), 22, struct.pack("<i", 800))
    assert failure(tmp_path, tall)[0] == ImageStatus.CORRUPT
    wide = patched(encoded(plain, "GIF"), 6, struct.pack("<HH", 9000, 9000))
    assert failure(tmp_path, wide) == (ImageStatus.TOO_LARGE, TOO_LARGE)
    long = patched(encoded(plain, "PPM"), 3, b"800 8 ")
    assert failure(tmp_path, long)[0] == ImageStatus.CORRUPT
    header = struct.pack(">IIBBBBB", 80, 80, 8, 0, 0, 0, 0)
    assert failure(tmp_path, png_of(header, BODY, END))[0] == ImageStatus.CORRUPT


@pytest.mark.parametrize(
    ("image", "form"), [(Image.new("LAB", (8, 8)), "TIFF"), (Image.new("F", (8, 8)), "TIFF")]
)
def test_colours_that_nobody_shows_are_a_format_failure(
    tmp_path: Path, image: Image.Image, form: str
) -> None:
    code, what = failure(tmp_path, encoded(image, form))
    assert (code, what) == (ImageStatus.FORMAT, f"has colour mode {image.mode!r}")


@pytest.mark.parametrize("is_sound", [True, False])
def test_a_file_written_since_the_run_began_has_changed_and_nothing_else(
    tmp_path: Path, is_sound: bool
) -> None:
    path = tmp_path / "a.png"
    noise((9, 7)).save(path)
    path.write_bytes(path.read_bytes() if is_sound else b"half of it")
    opened = time.time_ns() - 60 * 10**9
    with pytest.raises(ImageError, match=CHANGED) as caught:
        load_pixels(path, SMALL, opened)
    assert caught.value.code == ImageStatus.CHANGED
    with pytest.raises(ImageError, match=CHANGED):
        load_pixels(Media(path, 1, 4), SMALL, opened)


def test_an_older_file_and_one_from_the_future_have_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    noise((9, 7)).save(path)
    opened = time.time_ns()
    for written in (0, opened, opened + CLOCK_SLACK_NS, opened + 3600 * 10**9):
        os.utime(path, ns=(written, written))
        np.testing.assert_array_equal(load_pixels(path, SMALL, opened), load_pixels(path, SMALL))


@pytest.mark.parametrize("left", [b"", b"half of it"])
def test_a_file_written_while_it_is_read_has_changed_whether_or_not_it_was_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: bytes
) -> None:
    path, decode = tmp_path / "a.png", images._decoded
    noise((9, 7)).save(path)

    def meddled(opened: Callable[..., Image.Image], file: Any, place: Path) -> Image.Image:
        image = opened(file, place) if not left else None
        path.write_bytes(b"the next version")
        return image or opened(io.BytesIO(left), place)

    monkeypatch.setattr(images, "_decoded", partial(meddled, decode))
    with pytest.raises(ImageError, match=CHANGED) as caught:
        load_pixels(path, SMALL)
    assert caught.value.code == ImageStatus.CHANGED
