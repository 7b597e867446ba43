"""The whole road in one file: pictures, features, a trained LoSA adaptor, a prediction.

Runs offline in seconds: three colours to tell apart, and a tiny backbone with random weights. For
real features leave out ``weights`` and ask for ``dinov2_s``:

    python examples/01_first_adaptor.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from losa.adapt.train import adapt
from losa.config import AdaptConfig, ExtractConfig
from losa.extract.run import extract
from losa.live.predict import PredictRequest, predict

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


def paint(root: Path, rng: np.random.Generator) -> None:
    """Noisy one-coloured pictures, laid out as split/class/picture.png."""
    for split, count in {"train": 8, "val": 4, "test": 4}.items():
        for name, colour in COLOURS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                noise = rng.integers(-40, 41, (64, 64, 3))
                pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")


def main(folder: Path) -> None:
    """Paint, extract, adapt, predict."""
    pictures, store, run = folder / "pictures", folder / "features.zarr", folder / "run"
    paint(pictures, np.random.default_rng(0))
    asked = ExtractConfig(
        model="test_vit", weights="random", img_size=64, dataset=f"folder:{pictures}", store=store
    )
    extracted = extract(asked.model_copy(update={"num_workers": 0}))
    print("store:", extracted["store_id"][:12], extracted["splits"])

    report = adapt(AdaptConfig(store=store, out=run, rank=4, epochs=10, batch_size=8))
    print("test top-1:", report.metrics["test"]["top1"], "with", dict(report.parameters))

    picture = pictures / "test" / "green" / "0.png"
    answer = predict(PredictRequest(run, (picture,), weights="random", store=store, top=1))
    print("prediction:", answer["predictions"][0]["top"], "cache:", answer["cache_check"])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(scratch))
