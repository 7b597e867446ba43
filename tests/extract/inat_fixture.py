"""Four images laid out as the real iNaturalist 2018 release: its JSON files, folders and names."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CATEGORIES = (
    {"id": 0, "name": "Lumbricus terrestris", "supercategory": "Animalia"},
    {"id": 7477, "name": "Quercus robur", "supercategory": "Plantae"},
)
"""Two species; the release numbers 8,142 of them from 0."""


def write_inat2018(root: Path) -> Path:
    """Write ``train2018.json``, ``val2018.json``, ``categories.json`` and four JPEG images."""
    root.mkdir(parents=True, exist_ok=True)
    for split, first in (("train", 0), ("val", 2)):
        images = [_image(root, first + offset, category) for offset, category in _pairs()]
        listing = {
            "info": {"year": 2018, "version": "1.0", "contributor": "iNaturalist"},
            "images": images,
            "licenses": [{"id": 3, "name": "Attribution-NonCommercial", "url": "https://x.test"}],
            "annotations": [
                {"id": image["id"], "image_id": image["id"], "category_id": category["id"]}
                for image, (_, category) in zip(images, _pairs(), strict=True)
            ],
            # As released: the names obfuscated, the taxonomy as opaque numbers.
            "categories": [
                {**category, "name": str(category["id"]), "kingdom": "1", "genus": "42"}
                for category in CATEGORIES
            ],
        }
        (root / f"{split}2018.json").write_text(json.dumps(listing))
    (root / "categories.json").write_text(json.dumps(CATEGORIES))
    return root


def _pairs() -> list[tuple[int, dict[str, Any]]]:
    return list(enumerate(CATEGORIES))


def _image(root: Path, number: int, category: dict[str, Any]) -> dict[str, Any]:
    """Write one photograph-sized JPEG and return its entry."""
    name = hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()
    path = f"train_val2018/{category['supercategory']}/{category['id']}/{name}.jpg"
    width, height = (800, 600) if number % 2 else (533, 800)
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize((width, height)).save(root / path, quality=90)
    return {
        "id": 400_000 + number,
        "file_name": path,
        "width": width,
        "height": height,
        "license": 3,
        "rights_holder": "A. Nonymous",
    }
