"""Your own pictures: a CSV file or a folder in, the command lines to run, and what losa sees in it.

    python examples/02_your_own_images.py path/to/folder     (class/picture.jpg, or split/class/...)
    python examples/02_your_own_images.py list.csv           (path,label or path,label,split)

Without an argument it makes a small list of its own, so that it runs anywhere.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from losa.errors import LosaError
from losa.extract.datasets import load_dataset
from losa.extract.images import load_pixels
from losa.extract.transforms import Preprocessing


def small_list(folder: Path) -> Path:
    """Twenty grey pictures, dark and bright, with a CSV file that names them."""
    lines = ["path,label"]
    for number in range(20):
        label, level = ("dark", 60) if number % 2 else ("bright", 190)
        Image.fromarray(np.full((48, 64, 3), level, np.uint8)).save(folder / f"{number:02d}.png")
        lines.append(f"{number:02d}.png,{label}")
    file = folder / "list.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def main(source: str) -> int:
    """Show what a data set holds, open its first picture, and say how to go on."""
    try:
        dataset = load_dataset(source, Path("data"))
        for split, samples in dataset.splits.items():
            counts = Counter(dataset.classes[sample.label] for sample in samples)
            print(f"{split}: {len(samples)} pictures, {dict(counts)}")
        first = next(iter(dataset.splits.values()))[0]
        half = (0.5, 0.5, 0.5)
        as_weights_want = Preprocessing((224, 224), 0.875, "center", "bicubic", half, half)
        print(first.path, "becomes", load_pixels(dataset.root / first.path, as_weights_want).shape)
    except LosaError as error:
        print(f"losa: error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"losa extract --model dinov2_s --dataset {source} --store mine.zarr")
    print("losa adapt --store mine.zarr --out runs/mine")
    print("losa predict --run runs/mine some_picture.jpg")
    return 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(main(sys.argv[1] if sys.argv[1:] else str(small_list(Path(scratch)))))
