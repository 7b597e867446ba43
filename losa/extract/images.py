"""From an image file to the pixels that the weights expect, with every way to fail named.

What a file may be is fixed here, not by what Pillow happens to accept: seven formats, at most 64
megapixels, no half-read images (but what a JPEG holds between its two ends is taken as libjpeg
takes it). An image of any mode becomes 8-bit RGB by one stated rule, is
turned upright by its EXIF orientation, and then goes through timm's evaluation transform. Pillow
and numpy only: decode workers import this module and nothing heavier.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from losa.errors import InputError
from losa.extract.media import Media, as_media
from losa.extract.transforms import Preprocessing

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
EXTENSIONS: Final = frozenset(
    [".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"]
)
MAX_PIXELS: Final = 64_000_000
TOO_LARGE: Final = f"has more than {MAX_PIXELS} pixels, or would have once resized"
"""What a store records, in one text, because its identity covers the text."""

CHANGED: Final = "was written while the run was reading its data set"

CLOCK_SLACK_NS: Final = 2_000_000_000
"""How far a file server's clock may differ from ours before files look changed that are not."""

BACKGROUND: Final = (255, 255, 255, 255)
"""What shows through where an image is transparent: white."""

_ORIENTATION_TAG: Final = 0x0112
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PLAIN_MODES: Final = ("1", "L", "P", "CMYK", "YCbCr")
_ALPHA_MODES: Final = ("LA", "PA", "RGBA", "La", "RGBa")
_DEEP_MODES: Final = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_DEEPEST: Final = 65535


_Bytes = io.BufferedReader | io.BytesIO


class ImageStatus(IntEnum):
    """Why a sample has no pixels, or no features that fit; 1 is what a store calls a good row."""

    OK = 1
    MISSING = 2
    CORRUPT = 3
    TOO_LARGE = 4
    FORMAT = 5
    PERMISSION = 6
    NOT_A_FILE = 7
    UNREADABLE = 8
    CRASH = 9
    TIMEOUT = 10
    CHANGED = 11
    NONFINITE = 12
    DAMAGED = 13
    SHORT = 14


class ImageError(InputError):
    """An image that cannot be used, with the status that a skipped row gets."""

    def __init__(self, path: Path, code: ImageStatus, what: str) -> None:
        self.code = code
        super().__init__(path, what, "mend or remove it, or use --on-error skip")


def load_pixels(
    place: Path | Media, preprocessing: Preprocessing, opened_ns: int | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """Pixels of an image, resized and cropped, not yet normalised.

    Args:
        place: where its bytes are.
        preprocessing: what it goes through.
        opened_ns: a file that was written after this time, as ``time.time_ns`` counts it, has
            changed under the run; ``None``: that is nobody's concern.

    Raises:
        ImageError: the file is missing, is no regular file, or holds no usable image.
    """
    return as_seen(open_rgb(place, opened_ns), as_media(place), preprocessing)


def as_seen(
    image: Image.Image, media: Media, preprocessing: Preprocessing, side: Fraction | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """An upright RGB image resized and cropped, or the view of it that ``media`` is.

    Args:
        image: decoded, of any size.
        media: what it is a view of.
        preprocessing: what it goes through.
        side: where the crop lies along the longer side, from 0 to 1; ``None``: in the middle.

    Raises:
        ImageError: once resized it would be too large.
    """
    target = _resized_size(image.size, preprocessing)
    if target[0] * target[1] > MAX_PIXELS:
        raise ImageError(media.path, ImageStatus.TOO_LARGE, TOO_LARGE)
    if media.policy:
        # Only now: what is too large is so in every view of it.
        from losa.extract.augment import augmented

        return augmented(image, media, preprocessing)
    if target != image.size:
        image = image.resize(target, Image.Resampling[preprocessing.interpolation.upper()])
    if side is not None and min(target) >= max(preprocessing.img_size):
        return np.array(_side_crop(image, preprocessing, side))
    return np.array(_centre_crop(image, preprocessing))


def filter_warnings() -> None:
    """Take Pillow's warnings alike in every process and thread that decodes.

    Pillow warns of odd metadata for every other photograph; only the size warning means trouble.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


def open_rgb(place: Path | Media, opened_ns: int | None = None) -> Image.Image:
    """Decode the first frame of an image to upright 8-bit RGB.

    Raises:
        ImageError: the file is missing, is no regular file, or holds no usable image.
    """
    media = as_media(place)
    path = media.path
    with regular_file(path, opened_ns) as whole:
        try:
            file = whole if media.size is None else _piece(whole, media)
            return _decoded(file, path) if media.shape is None else _raw(file, media.shape)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise ImageError(path, ImageStatus.TOO_LARGE, TOO_LARGE) from None
        except UnidentifiedImageError:
            what = f"is none of {', '.join(FORMATS)}"
            raise ImageError(path, ImageStatus.FORMAT, what) from None
        except (ImageError, MemoryError):
            raise
        except Exception as error:
            # Decoders meet broken bytes with any exception, from struct.error to SyntaxError.
            disk = isinstance(error, OSError) and error.errno is not None
            code = ImageStatus.UNREADABLE if disk else ImageStatus.CORRUPT
            what = f"cannot be decoded ({_one_line(error)})"
            raise ImageError(path, code, what) from None


def _decoded(file: _Bytes, path: Path) -> Image.Image:
    """Decode a file whose size is checked before its pixels are touched."""
    with Image.open(file, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ImageError(path, ImageStatus.TOO_LARGE, TOO_LARGE)
        image.load()
        return _upright(image, _as_rgb(image, path))


def _piece(whole: _Bytes, media: Media) -> _Bytes:
    """A part of a file, as a file of its own."""
    assert media.size is not None
    if media.size == 0:
        raise ImageError(media.path, ImageStatus.CORRUPT, "is empty")
    data = os.pread(whole.fileno(), media.size, media.offset)
    if len(data) < media.size:
        raise ImageError(media.path, ImageStatus.CORRUPT, "ends before the image does")
    return io.BytesIO(data)


def _raw(file: _Bytes, shape: tuple[int, int, int]) -> Image.Image:
    """An image whose pixels lie one after another."""
    pixels = np.frombuffer(file.read(), np.uint8).reshape(shape)
    return Image.fromarray(pixels if shape[2] > 1 else pixels[:, :, 0]).convert("RGB")


@contextmanager
def regular_file(path: Path, opened_ns: int | None) -> Iterator[_Bytes]:
    """Open a file for reading, but never wait for a pipe or read from a device.

    What changes under the run has no pixels, and no other fault either: what is half written
    may be whole tomorrow. See docs/decisions/0012-changed-files.md.
    """
    try:
        # O_NONBLOCK: opening a named pipe would otherwise wait for a writer that never comes.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        code, what = _open_failure(error)
        raise ImageError(path, code, what) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise ImageError(path, ImageStatus.NOT_A_FILE, "is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        _check_old(path, status, opened_ns)
        if status.st_size == 0:
            raise ImageError(path, ImageStatus.CORRUPT, "is empty")
        try:
            yield file
        except ImageError:
            _check_same(path, status, os.fstat(descriptor))
            raise
        _check_same(path, status, os.fstat(descriptor))


def _check_same(path: Path, before: os.stat_result, after: os.stat_result) -> None:
    """Refuse a file that was written while it was read."""
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ImageError(path, ImageStatus.CHANGED, CHANGED)


def _check_old(path: Path, status: os.stat_result, opened_ns: int | None) -> None:
    """Refuse a file that was written after a time; one from the future is merely misdated."""
    if opened_ns is not None:
        newest = time.time_ns() + CLOCK_SLACK_NS
        if opened_ns + CLOCK_SLACK_NS < status.st_mtime_ns <= newest:
            raise ImageError(path, ImageStatus.CHANGED, CHANGED)


def _open_failure(error: OSError) -> tuple[ImageStatus, str]:
    """What an error of ``open`` says about the sample."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
        return ImageStatus.MISSING, "is missing"
    if error.errno in (errno.EACCES, errno.EPERM):
        return ImageStatus.PERMISSION, "may not be read (permission denied)"
    if error.errno in (errno.ENXIO, errno.ENODEV):
        return ImageStatus.NOT_A_FILE, "is not a regular file"
    return ImageStatus.UNREADABLE, f"cannot be read ({os.strerror(error.errno or 0)})"


def _as_rgb(image: Image.Image, path: Path) -> Image.Image:
    """Turn any accepted mode into 8-bit RGB: 16-bit by 1/257, transparency over white."""
    if image.mode in _DEEP_MODES:
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > _DEEPEST:
            raise ImageError(path, ImageStatus.FORMAT, "has grey values beyond 16 bits")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    see_through = image.mode in (*_PLAIN_MODES, "RGB") and "transparency" in image.info
    if image.mode in _ALPHA_MODES or see_through:
        upper = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", upper.size, BACKGROUND), upper).convert(
            "RGB"
        )
    if image.mode in (*_PLAIN_MODES, "RGB"):
        return image.convert("RGB")
    raise ImageError(path, ImageStatus.FORMAT, f"has colour mode {image.mode!r}")


def _upright(original: Image.Image, rgb: Image.Image) -> Image.Image:
    """Turn an image as its EXIF orientation says; unreadable EXIF says nothing."""
    try:
        # After decoding, because PNG may carry EXIF behind its pixels, and because Pillow turns
        # TIFF files itself and then drops their tag.
        orientation = original.getexif().get(_ORIENTATION_TAG)
    except Exception:  # EXIF of cameras is broken in every way; the pixels are still good
        return rgb
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return rgb if turn is None else rgb.transpose(turn)


def _resized_size(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    """Width and height after the resize, rounded as timm and torchvision round them."""
    width, height = size
    target_height, target_width = preprocessing.resize
    if preprocessing.crop_mode == "squash":
        return target_width, target_height
    if preprocessing.crop_mode == "center" and target_height == target_width:
        short, long = min(size), max(size)
        other = int(target_height * long / short)
        return (target_height, other) if width <= height else (other, target_height)
    ratios = height / target_height, width / target_width
    ratio = max(ratios) if preprocessing.crop_mode == "border" else min(ratios)
    return max(1, round(width / ratio)), max(1, round(height / ratio))


def _centre_crop(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Cut the middle out; where the image is too small, a border fills it up."""
    height, width = preprocessing.img_size
    black = (0, 0, 0)
    mean = tuple(round(255 * value) for value in preprocessing.mean)
    fill = mean if preprocessing.crop_mode == "border" else black
    left, top = _crop_start(image.width, width), _crop_start(image.height, height)
    if left >= 0 and top >= 0:
        return image.crop((left, top, left + width, top + height))
    canvas = Image.new("RGB", (width, height), fill)
    canvas.paste(image, (-left, -top))
    return canvas


def _side_crop(image: Image.Image, preprocessing: Preprocessing, side: Fraction) -> Image.Image:
    """Cut a part out that lies anywhere along the longer side, and in the middle of the other."""
    height, width = preprocessing.img_size
    left, top = _crop_start(image.width, width), _crop_start(image.height, height)
    if image.width >= image.height:
        left = round(side * (image.width - width))
    else:
        top = round(side * (image.height - height))
    return image.crop((left, top, left + width, top + height))


def _crop_start(have: int, want: int) -> int:
    """First pixel of a centred crop; negative where a border goes first."""
    return round((have - want) / 2) if have >= want else -((want - have) // 2)


def _one_line(error: BaseException) -> str:
    """An exception's text without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
