"""Images that are damaged in seeded ways, for a run that must survive all of them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

SUFFIXES = {
    "JPEG": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "BMP": "bmp",
    "GIF": "gif",
    "TIFF": "tif",
    "PPM": "ppm",
}
HEADER_BYTES = 64
"""Where a format says how large its image is and how its pixels lie."""


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG file, with its checksum."""
    checked = kind + data
    return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))


def png_of(header: bytes, *chunks: bytes) -> bytes:
    """A PNG file of chunks behind a header."""
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + b"".join(chunks)


def encoded(draw: np.random.Generator, form: str) -> bytes:
    """A sound image."""
    width, height = draw.integers(20, 60, 2)
    pixels = draw.integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    buffer = io.BytesIO()
    image = Image.fromarray(pixels).resize((int(width), int(height)))
    if form == "TIFF":
        image.save(buffer, form, compression=str(draw.choice(["raw", "tiff_lzw", "jpeg"])))
    else:
        image.save(buffer, form)
    return buffer.getvalue()


def truncated(draw: np.random.Generator, data: bytes) -> bytes:
    """Cut anywhere, the beginning included."""
    return data[: draw.integers(0, len(data))]


def flipped(draw: np.random.Generator, data: bytes) -> bytes:
    """Some bits turned over, anywhere."""
    changed = np.frombuffer(data, np.uint8).copy()
    for place in draw.integers(0, len(data), draw.integers(1, 20)):
        changed[place] ^= 1 << draw.integers(0, 8)
    return changed.tobytes()


def lying(draw: np.random.Generator, data: bytes) -> bytes:
    """Bytes of the header replaced by large, small or any numbers; a PNG's checksum agrees."""
    changed = bytearray(data)
    for place in draw.integers(2, min(HEADER_BYTES, len(data) - 4), 3):
        changed[place : place + 4] = draw.choice(
            [bytes(4), b"\xff\xff\xff\xff", b"\x00\x00\x10\x00", draw.bytes(4)]
        )[:4].ljust(4, b"\x00")
    if data.startswith(b"\x89PNG"):
        size = struct.pack(">II", *draw.integers(1, 3000, 2))
        header = size + data[24:29]
        return png_of(header, data[33:])
    return bytes(changed)


def bomb(draw: np.random.Generator, data: bytes) -> bytes:
    """Few bytes that claim, or unpack to, very many."""
    side = int(draw.integers(8001, 60_000))
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(10_000)))
    grey = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    small = struct.pack(">IIBBBBB", 16, 16, 8, 0, 0, 0, 0)
    text = png_chunk(b"zTXt", b"note\x00\x00" + zlib.compress(bytes(8_000_000), 9))
    large = bytearray(encoded(draw, "BMP"))
    large[18:26] = struct.pack("<ii", side, side)
    choices = [png_of(grey, pixels, data), png_of(small, text, pixels), bytes(large)]
    return choices[draw.integers(len(choices))]


def foreign(draw: np.random.Generator, data: bytes) -> bytes:
    """What is no image of the formats that are read."""
    ico = io.BytesIO()
    Image.new("RGB", (16, 16)).save(ico, "ICO")
    choices = [
        b"<html><body>404 Not Found</body></html>",
        b"%PDF-1.7\n" + data,
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n" + data,
        ico.getvalue(),
        draw.bytes(500),
        zlib.compress(data),
    ]
    return choices[draw.integers(len(choices))]


MUTATIONS: dict[str, Callable[[np.random.Generator, bytes], bytes]] = {
    "truncated": truncated,
    "flipped": flipped,
    "lying": lying,
    "bomb": bomb,
    "foreign": foreign,
}


def mutated_images(count: int, *, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of images; every mutation meets every format in turn."""
    draw = np.random.default_rng(seed)
    forms, kinds = list(SUFFIXES), list(MUTATIONS)
    for number in range(count):
        kind, form = kinds[number % len(kinds)], forms[number // len(kinds) % len(forms)]
        data = MUTATIONS[kind](draw, encoded(draw, form))
        yield f"{number:03d}-{kind}.{SUFFIXES[form]}", data
