"""M9: what does int8 cost? Bytes, signal-to-noise and top-1 on real features.

Method: the textile pictures (800 train, 200 val, 1,000 test; ``--images`` takes fewer in the same
shares) are extracted three times with the demo's DINOv2 ViT-S/14, which gives the same features
bit by bit, into a float32, a float16 and an int8 store. Calibration sees train alone; the
signal-to-noise is that of test. LoSA then trains with the default recipe on float16 and on int8,
seed by seed.

Reported: bytes of the whole int8 store over those of the float16 store; 10 log10 of the sum of
squares over the sum of squared errors, of each token (median) and of each channel (5th percentile),
for the worst tap; the same of channels without their mean, which is what a standardised adaptor
sees; test top-1 of both with the standard error over seeds, and the mean difference in points.
Table on stderr; one JSON document as the last line of stdout and in
``benchmarks/results/int8.json``.

    python -m benchmarks int8
    python -m benchmarks int8 --images 200 --seeds 1 --epochs 2
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.record import note, publish
from benchmarks.suite import Result, line
from benchmarks.tasks import GRIDS, Bench
from demo.__main__ import prepare
from demo.assets import CACHE, TEXTILE, fetch
from demo.command import losa, program
from demo.textile import COUNTS, split_tree, textile
from losa.errors import UsageError
from losa.features import StoreDtype

if TYPE_CHECKING:
    from jaxtyping import Float

MOST_BYTES: Final = 0.505
LEAST_TOKEN_DB: Final = 40.0
LEAST_CHANNEL_DB: Final = 36.0
MOST_POINTS: Final = 0.2
FEWEST_IMAGES: Final = 60
DTYPES: Final[tuple[StoreDtype, ...]] = ("float32", "float16", "int8")


@dataclass(frozen=True, slots=True)
class Noise:
    """Signal-to-noise of one tap, in dB."""

    tap: int
    median_token: float
    channel_5th: float
    centred_channel_5th: float


class NoiseSums:
    """Sums over the batches of one tap."""

    def __init__(self, channels: int) -> None:
        self._tokens: list[np.ndarray] = []
        self._signal, self._mean, self._error = np.zeros((3, channels))
        self._count = 0

    def add(self, true: Float[np.ndarray, "b l d"], found: Float[np.ndarray, "b l d"]) -> None:
        """Take in one batch."""
        signal, error = np.square(true, dtype="f8"), np.square(found - true, dtype="f8")
        self._tokens.append((signal.sum(-1) / error.sum(-1)).ravel())
        self._signal += signal.sum((0, 1))
        self._error += error.sum((0, 1))
        self._mean += true.sum((0, 1), dtype="f8")
        self._count += true.shape[0] * true.shape[1]

    def noise(self, tap: int) -> Noise:
        """What was seen so far."""
        variation = self._signal - self._mean**2 / self._count
        decibels = (
            np.median(10 * np.log10(np.concatenate(self._tokens))),
            np.percentile(10 * np.log10(self._signal / self._error), 5),
            np.percentile(10 * np.log10(variation / self._error), 5),
        )
        return Noise(tap, *(round(float(value), 2) for value in decibels))


@program
def main(argv: list[str]) -> int:
    """Measure; returns the exit code."""
    options = options_of(argv)
    if options.images < FEWEST_IMAGES or options.seeds < 1:
        todo = f"use {FEWEST_IMAGES} images and 1 seed or more"
        raise UsageError("--images, --seeds", "are too few", todo)
    stores = extracted(options)
    noise = noise_of(stores["float32"], stores["int8"], options.split)
    results = {
        dtype: _bench(dtype, stores[dtype], options).measure(
            "losa", GRIDS["default"], options.seeds
        )
        for dtype in ("float16", "int8")
    }
    found = summary({dtype: tree_bytes(path) for dtype, path in stores.items()}, noise, results)
    note("\n".join([*map(line, results.values()), *map(str, noise)]))
    details = {name: getattr(options, name) for name in ("images", "img_size", "taps", "epochs")}
    publish("int8", argv, {**details, "seeds": options.seeds, **found})
    return 0


def summary(
    sizes: dict[StoreDtype, int], noise: list[Noise], results: dict[str, Result]
) -> dict[str, Any]:
    """The figures of M9, and whether each hits its target."""
    half, ours = results["float16"], results["int8"]
    pairs = zip(ours.test_by_seed, half.test_by_seed, strict=True)
    points = [100 * (after - before) for after, before in pairs]
    change = statistics.fmean(points)
    error = statistics.stdev(points) / len(points) ** 0.5 if len(points) > 1 else None
    share = sizes["int8"] / sizes["float16"]
    token = min(item.median_token for item in noise)
    channel = min(item.channel_5th for item in noise)
    return {
        "bytes": sizes,
        "int8_over_float16": round(share, 4),
        "median_token_db": token,
        "channel_5th_db": channel,
        "noise": [asdict(item) for item in noise],
        "top1_change_points": round(change, 3),
        "top1_change_error": None if error is None else round(error, 3),
        "hits": {
            "bytes": share <= MOST_BYTES,
            "median_token": token >= LEAST_TOKEN_DB,
            "channel_5th": channel >= LEAST_CHANNEL_DB,
            "top1": abs(change) <= max(MOST_POINTS, error or 0.0),
        },
        "results": [asdict(result) for result in results.values()],
    }


def extracted(options: argparse.Namespace) -> dict[StoreDtype, Path]:
    """The three stores, extracted or found so."""
    with redirect_stdout(sys.stderr):
        folder, weights = _pictures(options), prepare(options.cache)
        stores = {}
        for dtype in DTYPES:
            name = f"textile{options.images}-{options.img_size}px-{dtype}.zarr"
            stores[dtype] = options.out / name
            losa(
                *("extract", "--model", "dinov2_s", "--weights", str(weights)),
                *("--dataset", f"folder:{folder}", "--img-size", str(options.img_size)),
                *("--taps", options.taps, "--store", str(stores[dtype]), "--store-dtype", dtype),
            )
    return stores


def noise_of(true: Path, found: Path, split: str) -> list[Noise]:
    """Signal-to-noise of a store's features against those of another, tap by tap."""
    from losa.store import open_store

    taps = open_store(true).spec.taps
    sums = [NoiseSums(open_store(true).spec.channels) for _ in taps]
    for want, have in zip(_planes(true, split), _planes(found, split), strict=True):
        for tap, one in enumerate(sums):
            one.add(want[tap], have[tap])
    return [one.noise(tap) for tap, one in zip(taps, sums, strict=True)]


def tree_bytes(path: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _planes(path: Path, split: str) -> Iterator[Float[np.ndarray, "k b l d"]]:
    import torch

    from losa.adapt.loader import FeatureLoader
    from losa.adapt.ring import RingOptions, ring_on
    from losa.store import open_store

    store = open_store(path)
    rows = np.flatnonzero(store.split(split).status == 1)
    with ring_on(store, store.spec.taps, RingOptions(32, torch.device("cpu"))) as ring:
        loader = FeatureLoader(store.split(split), rows, ring)
        for batch in loader.epoch(0):
            yield loader.decode(batch).numpy()


def _bench(dtype: str, store: Path, options: argparse.Namespace) -> Bench:
    return Bench(f"textile-{dtype}", store, tree_bytes(store), options.out, options.epochs)


def _pictures(options: argparse.Namespace) -> Path:
    """All textile pictures, or a part of them with the same shares of splits."""
    everything = sum(COUNTS.values())
    if options.images == everything:
        return textile(options.cache)
    folder: Path = options.out / f"textile{options.images}"
    if not folder.is_dir():
        counts = {split: count * options.images // everything for split, count in COUNTS.items()}
        split_tree(fetch(TEXTILE, options.cache) / TEXTILE.members, folder, counts)
    return folder


def options_of(argv: list[str]) -> argparse.Namespace:
    """Parse the flags."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks int8")
    parser.add_argument("--images", type=int, default=sum(COUNTS.values()))
    parser.add_argument("--seeds", type=int, default=3, help="training seeds, 1 or more")
    parser.add_argument("--epochs", type=int, default=30, help="of every training run")
    parser.add_argument("--img-size", type=int, default=112, help="a multiple of 14")
    parser.add_argument("--taps", default="every:3")
    parser.add_argument("--split", default="test", help="whose signal-to-noise is measured")
    parser.add_argument("--out", type=Path, default=Path("runs/int8"))
    parser.add_argument("--cache", type=Path, default=CACHE)
    return parser.parse_args(argv)
