"""M5: how many times faster is an epoch over cached features than one that runs the backbone?

Method: generated JPEGs of about 256 px, ViT-S/14 at 224 px with random weights, four taps, batches
of 32, defaults everywhere else. In turns, in one process with all cores: an epoch of ``losa adapt``
on the store of the images, an epoch of ``losa adapt --live`` (decoding included, in processes of
its own, as its users have it), and epochs of LoRA and of full fine-tuning of the same backbone on
pixels that are decoded already and lie in memory, which favours these two. An epoch is what lies
between two validations: all train images once, forward, backward and AdamW. The cached training's
seconds are the median of the epochs of a run; a run's first epoch, which opens and warms, counts
nowhere.

Reported: seconds of each, and live over cached (targets >= 25, >= 60, >= 80). The best rounds
decide; medians and the rounds' own ratios (``paired``) stand beside them. Table on stderr; one JSON
document as the last line of stdout and in ``benchmarks/results/epochs.json``.

    python -m benchmarks epochs
    python -m benchmarks epochs --images 128 --rounds 5
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import torch

from benchmarks import rounds
from benchmarks.extraction import draw
from benchmarks.onlinenets import METHODS, OnlineNet
from benchmarks.onlinetrain import Labelled, Learner, Recipe, decoded
from benchmarks.record import note, publish
from benchmarks.stores import scratch
from losa.adapt.progress import ProgressEvent
from losa.adapt.train import adapt
from losa.config import AdaptConfig, ExtractConfig, LiveConfig
from losa.device import resolve_compute
from losa.extract.backbones import BackboneRequest, build_backbone
from losa.extract.datasets import load_dataset
from losa.extract.run import extract
from losa.extract.vit import ViTBackbone
from losa.live.training import adapt_live

CACHED: Final = "cached LoSA"
TARGETS: Final[Mapping[str, float]] = MappingProxyType(
    {"live LoSA": 25.0, "LoRA": 60.0, "full fine-tuning": 80.0}
)
"""What M5 asks of each rival's epoch over the cached one."""

VAL_IMAGES: Final = 4
CLASSES: Final = ("a", "b")
CACHED_EPOCHS: Final = 9
LIVE_EPOCHS: Final = 2


def main(argv: list[str]) -> int:
    """Measure, print a table, and publish ``results/epochs.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks epochs")
    parser.add_argument("--images", type=int, default=64, help="of an epoch")
    parser.add_argument("--model", default="dinov2_s")
    parser.add_argument("--img-size", type=int, default=224)
    parser.add_argument("--taps", default="every:3")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dir", type=Path, default=None, help="where images and stores are put")
    options = parser.parse_args(argv)
    with scratch(options.dir) as folder:
        contest = Contest(options, folder)
        times = rounds.in_turns(contest.contenders(), options.rounds)
    for name, seconds in times.items():
        best, median = min(seconds), statistics.median(seconds)
        each = f"{best / options.images * 1e3:8.2f} ms an image"
        note(f"{name:17} best {best:8.3f} s  median {median:8.3f} s  {each}")
    metrics = {
        name: rounds.verdict("M5", rounds.ratio(times, name, CACHED), f"x {name}", target)
        for name, target in TARGETS.items()
    }
    asked = ("images", "model", "img_size", "taps", "rounds")
    publish(
        "epochs",
        argv,
        {
            **{name: getattr(options, name) for name in asked},
            "threads": torch.get_num_threads(),
            "seconds": {name: [round(one, 6) for one in found] for name, found in times.items()},
            "ratios": metrics,
        },
    )
    return 0


class Stopwatch:
    """Told the progress of a training: seconds of each epoch but the first, validation left out."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._since: float | None = None

    def __call__(self, event: ProgressEvent) -> None:
        """An epoch ends with its last step, and the next begins when validation is through."""
        now = time.perf_counter()
        if event.phase == "val":
            self._since = now
        elif event.phase == "train" and event.step == event.steps and self._since is not None:
            self.seconds.append(now - self._since)

    @property
    def median(self) -> float:
        """Seconds of an epoch."""
        return statistics.median(self.seconds)


class Contest:
    """The same images cached, live and in memory, and an epoch over each."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._folder = folder
        self._device = options.device
        images = f"folder:{pictures(folder, options.images)}"
        what = {"model": options.model, "weights": "random", "dataset": images}
        what |= {"img_size": options.img_size, "taps": options.taps}
        self._live = LiveConfig(**what, calibration_rows=VAL_IMAGES)
        self._store = folder / "features.zarr"
        extract(ExtractConfig(**what, store=self._store, device=options.device))
        self._compute = resolve_compute(options.device, "auto")
        request = BackboneRequest(
            options.model, "random", options.img_size, "last", dtype="float32"
        )
        backbone = build_backbone(request, device=self._compute.device, amp_dtype=self._compute.amp)
        assert isinstance(backbone, ViTBackbone)
        self._backbone = backbone
        dataset = load_dataset(images, Path(), splits=("train",), seed=0)
        self._images = decoded(dataset, backbone.preprocessing, 1, ("train",))["train"]

    def contenders(self) -> dict[str, Callable[[], float]]:
        """Each trains for a while and returns the seconds of an epoch."""
        return {
            CACHED: self.cached,
            "live LoSA": self.live,
            "LoRA": self._tuning("lora"),
            "full fine-tuning": self._tuning("full"),
        }

    def cached(self) -> float:
        """Seconds of an epoch over the store."""
        watch = Stopwatch()
        adapt(self._config(CACHED_EPOCHS).model_copy(update={"store": self._store}), progress=watch)
        return watch.median

    def live(self) -> float:
        """Seconds of an epoch beside the backbone."""
        watch = Stopwatch()
        config = self._config(LIVE_EPOCHS).model_copy(update={"live": self._live})
        adapt_live(config, progress=watch)
        return watch.median

    def _config(self, epochs: int) -> AdaptConfig:
        out = self._folder / "run"
        return AdaptConfig(out=out, epochs=epochs, device=self._device, overwrite=True)

    def _tuning(self, method: str) -> Callable[[], float]:
        """A network in training, which goes on from round to round."""
        network = OnlineNet(self._backbone, METHODS[method], len(CLASSES))
        recipe = Recipe(method, METHODS[method].lrs[0], seed=0, epochs=1000)
        learner = Learner(network, recipe, len(self._images.labels), self._compute)
        few = Labelled(self._images.pixels[:VAL_IMAGES], self._images.labels[:VAL_IMAGES])
        warm = Learner(network, recipe, VAL_IMAGES, self._compute)
        warm.epoch(few, 0)

        def run() -> float:
            before = learner.seconds
            learner.epoch(self._images, learner.epochs)
            return learner.seconds - before

        return run


def pictures(folder: Path, count: int) -> Path:
    """A folder of two classes with ``count`` images in train, and a few in val."""
    draw(folder / "drawn", count + VAL_IMAGES)
    root = folder / "pictures"
    for number, path in enumerate(sorted((folder / "drawn").rglob("*.jpg"))):
        split = "val" if number < VAL_IMAGES else "train"
        place = root / split / CLASSES[number % len(CLASSES)] / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)
    return root
