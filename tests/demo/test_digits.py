from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo import digits as program
from demo.assets import DIGITS
from demo.digits import read_csv, write_tree
from losa.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 28, 28)).astype(np.uint8)
LABELS = np.arange(30) % 3


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.png")}


def write_csv(path: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    table = np.concatenate([pixels.reshape(len(pixels), -1), labels[:, None]], axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("\n".join(",".join(map(str, row)) for row in table).encode()))


def test_pictures_and_labels_are_read_back_from_the_csv(tmp_path: Path) -> None:
    write_csv(tmp_path / "digits.csv.gz", PIXELS.astype(np.int64), LABELS)
    pixels, labels = read_csv(tmp_path / "digits.csv.gz", 28)
    assert np.array_equal(pixels, PIXELS)
    assert np.array_equal(labels, LABELS)


def test_small_digits_keep_their_size_and_their_sixteen_steps_become_grey_levels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.arange(2048).reshape(32, 8, 8) % 17
    monkeypatch.setattr(program, "fetch", lambda _, cache: cache)
    monkeypatch.setattr(program, "FEW_COUNTS", {"train": 32})
    write_csv(tmp_path / DIGITS.members, values, np.arange(32) % 2)
    folder = program.digits(tmp_path)
    assert program.digits(tmp_path) == folder
    for row in range(32):
        with Image.open(folder / f"train/{row % 2}/{row:04d}.png") as image:
            assert np.abs(np.asarray(image) / 255 - values[row] / 16).max() < 1 / 500


def test_a_csv_of_another_width_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "digits.csv.gz"
    path.write_bytes(gzip.compress(b"1,2,3\n"))
    with pytest.raises(InputError, match="has 3 columns"):
        read_csv(path, 28)


def test_the_same_seed_writes_the_same_tree(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_tree(tmp_path / name, PIXELS, LABELS, {"train": 12, "test": 6}, seed=5)
    first = contents(tmp_path / "one")
    assert len(first) == 18
    assert first == contents(tmp_path / "two")


def test_a_picture_lies_under_its_class_with_its_own_pixels(tmp_path: Path) -> None:
    write_tree(tmp_path / "tree", PIXELS, LABELS, {"train": 30})
    for row in range(30):
        with Image.open(tmp_path / f"tree/train/{LABELS[row]}/{row:04d}.png") as image:
            assert np.array_equal(np.asarray(image), PIXELS[row])
