"""MNIST and its kin: images and labels as arrays of bytes, read from where they lie.

Source: http://yann.lecun.com/exdb/mnist, section "The IDX file format".
"""

from __future__ import annotations

import os
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from losa.errors import InputError, ResourceError
from losa.extract.annotations import Listed
from losa.extract.media import Media
from losa.extract.samples import Listing

_UBYTE: Final = 8
_DIGITS: Final = tuple(string.digits)
_LETTERS: Final = tuple(string.ascii_lowercase)
_MERGED: Final = (*_DIGITS, *string.ascii_uppercase, *"abdefghnqrt")


@dataclass(frozen=True, slots=True)
class ArraySet:
    """One data set of two pairs of files: its folder, their names, its classes by number.

    Args:
        folder: where torchvision puts the files.
        pattern: their names, with PART for ``train`` and ``test``.
        classes: class names.
        first: the smallest label in the files.
        test: what PART is for the test split.
    """

    folder: str
    pattern: str
    classes: tuple[str, ...]
    first: int = 0
    test: str = "test"

    def read(self, root: Path) -> Listing:
        """The samples of both splits.

        Raises:
            InputError: a file is missing, packed, or not of this form.
        """
        lines: list[Listed] = []
        pieces: dict[str, Media] = {}
        for split, part in (("train", "train"), ("test", self.test)):
            stem = root / self.pattern.partition("-IMAGES")[0].replace("PART", part)
            images, labels = Path(f"{stem}-images-idx3-ubyte"), Path(f"{stem}-labels-idx1-ubyte")
            (count, height, width), start = _header(images, 3)
            for number, label in enumerate(self._labels(labels, count)):
                path = f"{split}/{number:05d}"
                place = start + number * height * width
                pieces[path] = Media(images, place, height * width, (height, width, 1))
                lines.append(Listed(path, label, split, path))
        return Listing("", root, root, lines, self.classes, pieces)

    def _labels(self, file: Path, count: int) -> list[str]:
        """The class of every image."""
        (found,), start = _header(file, 1)
        if found != count:
            raise InputError(file, f"holds {found} labels of {count} images", "fetch it again")
        labels = file.read_bytes()[start:]
        for number, label in enumerate(labels):
            if not 0 <= label - self.first < len(self.classes):
                what = f"label {number} is {label}, which is no class"
                raise InputError(file, what, "fetch it again")
        return [self.classes[label - self.first] for label in labels]


def _header(file: Path, axes: int) -> tuple[tuple[int, ...], int]:
    """Lengths of the axes, and where the bytes begin; the file must hold just these."""
    try:
        with file.open("rb") as source:
            start = 4 + 4 * axes
            head = source.read(start)
            size = os.fstat(source.fileno()).st_size
    except FileNotFoundError:
        packed = file.with_name(f"{file.name}.gz").exists()
        todo = "unpack it with gunzip" if packed else "fetch it, and unpack it"
        raise InputError(file, "is missing", todo) from None
    except OSError as error:
        raise ResourceError(file, f"cannot be read ({error.strerror})", "check it") from None
    shape = tuple(int.from_bytes(head[at : at + 4], "big") for at in range(4, start, 4))
    length = 1
    for axis in shape:
        length *= axis
    if head[:4] != bytes((0, 0, _UBYTE, axes)) or not length or size != start + length:
        what = f"is no whole idx file of bytes with {axes} axes"
        raise InputError(file, what, "fetch it again, and unpack it")
    return shape, start


def _emnist(name: str, classes: tuple[str, ...], first: int = 0) -> ArraySet:
    pattern = f"emnist-{name}-PART-IMAGES-idx3-ubyte, rows and columns swapped as released"
    return ArraySet("EMNIST/raw", pattern, classes, first)


_MNIST: Final = "PART-IMAGES-idx3-ubyte (and labels-idx1), PART: train, t10k; unpacked"
SETS: Final[Mapping[str, ArraySet]] = {
    "mnist": ArraySet("MNIST/raw", _MNIST, _DIGITS, test="t10k"),
    "fashion_mnist": ArraySet(
        "FashionMNIST/raw",
        _MNIST,
        (
            "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
            "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
        ),
        test="t10k",
    ),
    "kmnist": ArraySet(
        "KMNIST/raw",
        _MNIST,
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        test="t10k",
    ),
    "emnist_balanced": _emnist("balanced", _MERGED),
    "emnist_bymerge": _emnist("bymerge", _MERGED),
    "emnist_byclass": _emnist(
        "byclass", (*_DIGITS, *string.ascii_uppercase, *string.ascii_lowercase)
    ),
    "emnist_letters": _emnist("letters", _LETTERS, first=1),
    "emnist_digits": _emnist("digits", _DIGITS),
    "emnist_mnist": _emnist("mnist", _DIGITS),
}  # fmt: skip
