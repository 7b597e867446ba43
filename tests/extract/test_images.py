from __future__ import annotations

import os
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from timm.data.transforms_factory import create_transform

from losa.errors import InputError
from losa.extract.images import TOO_LARGE, ImageError, ImageStatus, load_pixels, open_rgb
from losa.extract.transforms import Preprocessing
from tests.extract.mutations import png_chunk, png_of

HALF = (0.5, 0.5, 0.5)
PLAIN = Preprocessing((16, 16), 1.0, "center", "bicubic", HALF, HALF)


def noise(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    """An image of smooth noise, so that every rounding of a resize shows."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    shape = (size[1], size[0], bands) if bands > 1 else (size[1], size[0])
    values = np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)
    if mode in ("RGB", "L"):
        return Image.fromarray(values)
    return Image.frombytes(mode, size, values.tobytes())


@pytest.mark.parametrize("size", [(61, 47), (47, 61), (40, 40), (8, 200), (33, 21), (1, 1)])
@pytest.mark.parametrize("img_size", [(32, 32), (37, 37), (48, 28)])
@pytest.mark.parametrize("crop_pct", [0.875, 1.0])
@pytest.mark.parametrize(
    ("mode", "interpolation"),
    [
        ("center", "bicubic"),
        ("center", "bilinear"),
        ("center", "lanczos"),
        ("squash", "bicubic"),
        ("border", "bicubic"),
    ],
)
def test_pixels_equal_timms_evaluation_transform(
    tmp_path: Path,
    size: tuple[int, int],
    img_size: tuple[int, int],
    crop_pct: float,
    mode: str,
    interpolation: str,
) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    path = tmp_path / "noise.png"
    noise(size).save(path)
    pixels = load_pixels(path, Preprocessing(img_size, crop_pct, mode, interpolation, mean, std))
    transform = create_transform(
        (3, *img_size),
        is_training=False,
        crop_pct=crop_pct,
        crop_mode=mode,
        interpolation=interpolation,
        mean=mean,
        std=std,
    )
    wanted = transform(Image.open(path))
    assert isinstance(wanted, torch.Tensor)
    found = (pixels / 255 - np.asarray(mean)) / np.asarray(std)
    np.testing.assert_allclose(found.transpose(2, 0, 1), wanted.numpy(), atol=1e-6)


@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_image_upright(
    tmp_path: Path, orientation: int, kind: str
) -> None:
    path = tmp_path / f"turned.{kind}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise((12, 8)).save(path, exif=exif)
    with Image.open(path) as image:
        wanted = ImageOps.exif_transpose(image).convert("RGB")
    np.testing.assert_array_equal(np.asarray(open_rgb(path)), np.asarray(wanted))
    assert open_rgb(path).size == ((12, 8) if orientation < 5 else (8, 12))


def test_sixteen_bit_grey_is_scaled_by_257(tmp_path: Path) -> None:
    values = np.array([[0, 128, 129, 257, 300, 65535, 65406, 65407]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    wanted = np.rint(values / 257).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(open_rgb(tmp_path / "deep.png"))[..., 0], wanted)


def test_transparency_shows_white_behind_it(tmp_path: Path) -> None:
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 0] = 200
    rgba[0, :, 3] = (0, 51, 255)
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    alpha = rgba[..., 3:] / 255
    wanted = np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha))
    np.testing.assert_allclose(np.asarray(open_rgb(tmp_path / "rgba.png")), wanted, atol=1)

    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putdata([0, 1])
    palette.save(tmp_path / "palette.png", transparency=0)
    found = np.asarray(open_rgb(tmp_path / "palette.png"))
    np.testing.assert_array_equal(found, [[[255, 255, 255], [40, 50, 60]]])


@pytest.mark.parametrize(
    ("mode", "kind"), [("L", "png"), ("1", "png"), ("LA", "png"), ("CMYK", "jpg"), ("YCbCr", "jpg")]
)
def test_other_modes_become_rgb(tmp_path: Path, mode: str, kind: str) -> None:
    path = tmp_path / f"image.{kind}"
    (noise((9, 7)).convert(mode) if mode == "1" else noise((9, 7), mode)).save(path)
    assert load_pixels(path, PLAIN).shape == (16, 16, 3)
    if mode != "LA":
        with Image.open(path) as image:
            np.testing.assert_array_equal(open_rgb(path), np.asarray(image.convert("RGB")))


def test_a_png_named_jpg_is_read_by_its_bytes(tmp_path: Path) -> None:
    noise((9, 7)).save(tmp_path / "liar.jpg", format="PNG")
    assert open_rgb(tmp_path / "liar.jpg").size == (9, 7)


def status_of(path: Path) -> ImageStatus:
    with pytest.raises(ImageError) as caught:
        load_pixels(path, PLAIN)
    assert isinstance(caught.value, InputError)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value).removeprefix(str(path))
    return caught.value.code


def test_what_is_not_a_regular_file_is_coded_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "null.jpg").symlink_to("/dev/zero")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "dangling.jpg").symlink_to("nowhere.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.jpg"))
    assert status_of(tmp_path / "pipe.jpg") == ImageStatus.NOT_A_FILE
    assert status_of(tmp_path / "folder.jpg") == ImageStatus.NOT_A_FILE
    assert status_of(tmp_path / "null.jpg") == ImageStatus.NOT_A_FILE
    assert status_of(tmp_path / "s.jpg") == ImageStatus.NOT_A_FILE
    assert status_of(tmp_path / "loop.jpg") == ImageStatus.MISSING
    assert status_of(tmp_path / "dangling.jpg") == ImageStatus.MISSING
    assert status_of(tmp_path / "missing.jpg") == ImageStatus.MISSING
    assert status_of(tmp_path / ("x" * 300)) == ImageStatus.MISSING


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_a_permission_failure(tmp_path: Path) -> None:
    noise((4, 4)).save(tmp_path / "locked.png")
    (tmp_path / "locked.png").chmod(0)
    assert status_of(tmp_path / "locked.png") == ImageStatus.PERMISSION


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif", "bmp"])
def test_a_truncated_image_is_corrupt(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"cut.{kind}"
    noise((64, 64)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert status_of(path) in (ImageStatus.CORRUPT, ImageStatus.FORMAT)


def test_a_flipped_byte_in_a_png_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "flipped.png"
    noise((64, 64)).save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    assert status_of(path) == ImageStatus.CORRUPT


def test_what_is_no_accepted_image_is_a_format_failure(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    noise((8, 8)).save(tmp_path / "script.eps")
    (tmp_path / "script.eps").rename(tmp_path / "script.jpg")
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(np.full((4, 4), 70_000, np.int32)).save(tmp_path / "deep.tif")
    (tmp_path / "empty.jpg").touch()
    assert status_of(tmp_path / "page.jpg") == ImageStatus.FORMAT
    assert status_of(tmp_path / "script.jpg") == ImageStatus.FORMAT
    assert status_of(tmp_path / "float.tif") == ImageStatus.FORMAT
    assert status_of(tmp_path / "deep.tif") == ImageStatus.FORMAT
    assert status_of(tmp_path / "empty.jpg") == ImageStatus.CORRUPT


def png_that_claims(width: int, height: int) -> bytes:
    """A tiny PNG whose header claims a size."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    body = png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    return png_of(header, body, png_chunk(b"IEND", b""))


@pytest.mark.parametrize("size", [(8001, 8000), (10_000, 10_000), (20_000, 20_000)])
def test_a_bomb_is_too_large_before_a_pixel_is_decoded(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    (tmp_path / "bomb.png").write_bytes(png_that_claims(*size))
    with pytest.raises(ImageError, match=f"bomb.png: {TOO_LARGE};") as caught:
        load_pixels(tmp_path / "bomb.png", PLAIN)
    assert caught.value.code == ImageStatus.TOO_LARGE


def test_a_thread_of_pixels_may_not_grow_into_a_bomb_when_resized(tmp_path: Path) -> None:
    Image.new("L", (65_535, 1)).save(tmp_path / "thread.png")
    large = Preprocessing((224, 224), 1.0, "center", "bicubic", HALF, HALF)
    with pytest.raises(ImageError, match=f"thread.png: {TOO_LARGE};") as caught:
        load_pixels(tmp_path / "thread.png", large)
    assert caught.value.code == ImageStatus.TOO_LARGE


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_does_not_lose_the_image(tmp_path: Path) -> None:
    path = tmp_path / "odd.jpg"
    noise((12, 8)).save(path, exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    assert load_pixels(path, PLAIN).shape == (16, 16, 3)
