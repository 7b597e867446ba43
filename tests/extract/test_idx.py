"""Claims of losa.extract.idx."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from losa.errors import InputError
from losa.extract.datasets import load_dataset
from losa.extract.idx import SETS
from losa.extract.images import load_pixels
from losa.extract.transforms import Preprocessing

HALF = (0.5, 0.5, 0.5)
PLAIN = Preprocessing((28, 28), 1.0, "center", "bicubic", HALF, HALF)


def write_idx(file: Path, values: np.ndarray) -> None:
    """An idx file by its description: a magic number, lengths as big-endian words, bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    file.write_bytes(head + values.astype(np.uint8).tobytes())


def write_pair(stem: Path, labels: list[int]) -> np.ndarray:
    """Images and labels of one split; returns the images."""
    images = np.random.default_rng(len(labels)).integers(0, 256, (len(labels), 28, 28))
    write_idx(stem.with_name(f"{stem.name}-images-idx3-ubyte"), images)
    write_idx(stem.with_name(f"{stem.name}-labels-idx1-ubyte"), np.array(labels))
    return images


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    write_pair(tmp_path / "MNIST/raw/train", [3, 0, 9])
    write_pair(tmp_path / "MNIST/raw/t10k", [1, 1])
    return tmp_path


def test_every_image_is_read_from_its_place_with_its_label(mnist: Path) -> None:
    images = write_pair(mnist / "MNIST/raw/train", [3, 0, 9])
    dataset = load_dataset("mnist", mnist)
    assert {name: [s.label for s in listed] for name, listed in dataset.splits.items()} == {
        "train": [3, 0, 9],
        "test": [1, 1],
    }
    assert dataset.classes == tuple("0123456789")
    for sample, image in zip(dataset.splits["train"], images, strict=True):
        found = load_pixels(dataset.media(sample), PLAIN)
        assert np.array_equal(found, np.repeat(image[:, :, None], 3, axis=2))
    assert [sample.key for sample in dataset.splits["test"]] == ["test/00000", "test/00001"]


def test_letters_are_numbered_from_one_in_their_files(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_pair(tmp_path / f"EMNIST/raw/emnist-letters-{part}", [1, 26])
    dataset = load_dataset("torchvision:emnist_letters", tmp_path)
    assert [dataset.classes[sample.label] for sample in dataset.splits["test"]] == ["a", "z"]


def test_class_names_are_as_many_as_each_release_has() -> None:
    counts = {name: len(known.classes) for name, known in SETS.items()}
    assert counts == {
        "mnist": 10, "fashion_mnist": 10, "kmnist": 10, "emnist_balanced": 47,
        "emnist_bymerge": 47, "emnist_byclass": 62, "emnist_letters": 26, "emnist_digits": 10,
        "emnist_mnist": 10,
    }  # fmt: skip


def test_packed_files_are_named(mnist: Path) -> None:
    file = mnist / "MNIST/raw/train-images-idx3-ubyte"
    file.rename(file.with_name(f"{file.name}.gz"))
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte: is missing; unpack it"):
        load_dataset("mnist", mnist)


@pytest.mark.parametrize("change", ["cut", "longer", "magic", "empty"])
def test_a_file_that_is_not_whole_is_refused(mnist: Path, change: str) -> None:
    file = mnist / "MNIST/raw/t10k-images-idx3-ubyte"
    data = file.read_bytes()
    changed = {
        "cut": data[:-1],
        "longer": data + b"x",
        "magic": b"\0\0\x09" + data[3:],
        "empty": b"",
    }
    file.write_bytes(changed[change])
    with pytest.raises(InputError, match="is no whole idx file of bytes with 3 axes"):
        load_dataset("mnist", mnist)


def test_labels_that_are_no_classes_or_too_few_are_refused(mnist: Path) -> None:
    file = mnist / "MNIST/raw/train-labels-idx1-ubyte"
    write_idx(file, np.array([1, 2, 10]))
    with pytest.raises(InputError, match="label 2 is 10, which is no class"):
        load_dataset("mnist", mnist)
    write_idx(file, np.array([1, 2]))
    with pytest.raises(InputError, match="holds 2 labels of 3 images"):
        load_dataset("mnist", mnist)
