"""A small folder of pictures for tests: split/class/file, seeded noise on a class's colour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from losa.config import ExtractConfig

COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}


def picture_folder(root: Path, counts: dict[str, int], *, size: int = 32) -> Path:
    """Write ``counts[split]`` pictures of each class below ``root`` and return it."""
    draw = np.random.default_rng(0)
    for split, count in counts.items():
        for name, colour in COLOURS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                noise = draw.integers(-40, 40, (size, size, 3))
                pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return root


def touch(root: Path, *paths: str) -> Path:
    """Empty files below ``root``, for readers that list and open nothing."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def tiny_config(data: Path, store: Path, **changes: Any) -> ExtractConfig:
    """Extraction by a ViT-Ti with random weights at 32 pixels: 5 tokens of 192 channels."""
    values: dict[str, Any] = {
        "model": "vit_tiny_patch16_224",
        "weights": "random",
        "dataset": f"folder:{data}",
        "store": store,
        "img_size": 32,
        "taps": "2,11",
        "batch_size": 4,
        "shard_rows": 4,
        "num_workers": 0,
        "device": "cpu",
        "calibration_rows": 8,
        "durability": "none",
    }
    return ExtractConfig(**{**values, **changes})
