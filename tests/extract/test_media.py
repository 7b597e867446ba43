"""A sample's bytes are a file, or a piece of one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from losa.extract.images import ImageError, load_pixels, open_rgb
from losa.extract.media import Media, as_media
from losa.extract.transforms import Preprocessing

HALF = (0.5, 0.5, 0.5)
SMALL = Preprocessing((8, 8), 1.0, "center", "bicubic", HALF, HALF)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_a_piece_of_a_file_is_read_like_a_file_of_its_own(picture: Path) -> None:
    data = picture.read_bytes()
    joined = picture.with_name("joined")
    joined.write_bytes(b"before" + data + b"behind")
    piece = Media(joined, offset=6, size=len(data))
    np.testing.assert_array_equal(load_pixels(piece, SMALL), load_pixels(picture, SMALL))


def test_a_piece_beyond_the_end_of_its_file_is_corrupt(picture: Path) -> None:
    with pytest.raises(ImageError, match="ends before the image does"):
        open_rgb(Media(picture, offset=10, size=10**6))


@pytest.mark.parametrize("channels", [1, 3])
def test_raw_pixels_are_taken_as_they_are(tmp_path: Path, channels: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (2, 5, 4, channels), np.uint8)
    (tmp_path / "raw").write_bytes(b"head" + pixels.tobytes())
    size = pixels[0].nbytes
    found = open_rgb(Media(tmp_path / "raw", 4 + size, size, shape=(5, 4, channels)))
    np.testing.assert_array_equal(np.asarray(found), np.broadcast_to(pixels[1], (5, 4, 3)))


def test_a_path_is_a_file_of_its_own(picture: Path) -> None:
    assert as_media(picture) == Media(picture)
    assert as_media(Media(picture, view=2)) == Media(picture, view=2)
