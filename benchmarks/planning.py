"""Does ``losa plan --probe`` foretell how long an extraction takes?

Question: how far is the time that a probe of about ten seconds predicts from the wall time of the
real ``losa extract``, from the start of its process to its end?
Method: seeded JPEG files of the usual size (500 x 375) are written once; in every round a fresh
process predicts and then a fresh process extracts, with the same flags, into a new store on the
same disk.
Ratio against: the real wall time of the same round; a prediction within 25 % is a hit. The median
of the rounds decides, and every round is published.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from benchmarks.record import note, publish
from benchmarks.stores import scratch

MOST_OFF: Final = 0.25
SIZE: Final = (500, 375)
COARSE: Final = (32, 24)
CLASSES: Final = 10


def main(argv: list[str]) -> int:
    """Measure, print a line a round, and publish ``results/planning.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks planning")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--model", default="vit_s")
    parser.add_argument("--img-size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, default=None, help="a folder on a disk, no tmpfs")
    options = parser.parse_args(argv)
    with scratch(options.dir) as folder:
        pictures = write_pictures(folder / "pictures", options.images)
        flags = ["--model", options.model, "--weights", "random"]
        flags += ["--img-size", str(options.img_size), "--dataset", f"folder:{pictures}"]
        found = [one_round(flags, folder / "store.zarr") for _ in range(options.rounds)]
    off = statistics.median(one["predicted_seconds"] / one["real_seconds"] - 1 for one in found)
    hits = {f"within {MOST_OFF:.0%}": abs(off) <= MOST_OFF}
    publish("planning", argv, {"rounds": found, "off": off, "hits": hits})
    return 0


def one_round(flags: list[str], store: Path) -> dict[str, Any]:
    """Predict, then extract; both with the same flags."""
    words = [*flags, "--store", str(store)]
    probing, planned = losa("plan", *words, "--probe")
    real, _ = losa("extract", *words)
    for path in (store, store.with_name(f"{store.name}.extract.json")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    predicted = planned["probe"]["predicted_seconds"]
    note(f"predicted {predicted:.1f} s, took {real:.1f} s ({predicted / real - 1:+.0%})")
    return {
        "predicted_seconds": predicted,
        "real_seconds": real,
        "plan_seconds": probing,
        "probe": planned["probe"],
    }


def losa(*words: str) -> tuple[float, dict[str, Any]]:
    """Wall seconds of a command in a process of its own, and its result."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "losa", *words], check=True, stdout=subprocess.PIPE, text=True
    )
    return time.perf_counter() - started, json.loads(done.stdout)


def write_pictures(root: Path, count: int) -> Path:
    """JPEG files of smooth noise, one class after the other: root/train/class/file."""
    draw = np.random.default_rng(0)
    for number in range(count):
        folder = root / "train" / f"class{number % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        coarse = draw.integers(0, 256, (COARSE[1], COARSE[0], 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)
        picture.save(folder / f"{number:05d}.jpg", quality=90)
    return root
