"""M6: what do 16 trials in one pass cost, against 16 runs of their own?

Method: a store of random planes of the demo's shape (4 taps x 65 tokens x 384 channels, float16,
800 rows), batches of 32, two threads. In turns, in one process: ``losa adapt`` for each of 16
trials, one after the other, and one cohort of the same trials; once for 16 trials of one shape
(rank 8, four learning rates, four seeds) and once for a mixed grid (ranks 4, 8, 16, 32 by four
learning rates). Whole runs count: opening, training, validation, files. Beside them one live pass
with 16 heads: the steps of the first cohort fed by a ViT-S/14 at 112 px with random weights, whose
images are decoded already; its seconds of all epochs are those of one, measured, times their
number.

Reported: seconds of each; cohort over single runs (targets <= 0.35 and <= 0.5), and whether all
weights that val chose are equal to those of the single runs to the bit. Table on stderr; one JSON
document as the last line of stdout and in ``benchmarks/results/cohort.json``.

    python -m benchmarks cohort
    python -m benchmarks cohort --epochs 2 --rounds 1
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from benchmarks import rounds
from benchmarks.record import note, publish
from benchmarks.stores import fill, random_plan, scratch
from losa.adapt.adaptor import LoSA
from losa.adapt.cohort import CohortTrial, adapt_cohort
from losa.adapt.cohortstep import CohortStep
from losa.adapt.crew import Crew
from losa.adapt.rundir import BEST_NAME
from losa.adapt.train import adapt
from losa.adapt.trial import Position, Trial
from losa.config import AdaptConfig
from losa.device import resolve_compute
from losa.extract.backbones import BackboneRequest, build_backbone
from losa.features import FeatureSpec, Sample, TokenGrid
from losa.precision import EncodedPlanes
from losa.store import create_store
from losa.store.opening import open_source

DEMO: Final = FeatureSpec("vit_s", (2, 5, 8, 11), TokenGrid(8, 8, prefix=1), 384)
CLASSES: Final = 10
RATES: Final = (1e-3, 2e-3, 3e-3, 5e-3)
RANKS: Final = (4, 8, 16, 32)
TARGETS: Final = {"equal": 0.35, "mixed": 0.5}


def main(argv: list[str]) -> int:
    """Measure, print a table, and publish ``results/cohort.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks cohort")
    parser.add_argument("--rows", type=int, default=800)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--trials", type=int, default=16, help="of each kind, at most 16")
    parser.add_argument("--dir", type=Path, default=None, help="where stores and runs are put")
    options = parser.parse_args(argv)
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        with scratch(options.dir) as folder:
            result = measured(options, folder)
    finally:
        torch.set_num_threads(before)
    asked = ("rows", "epochs", "rounds", "threads", "trials")
    publish("cohort", argv, {**{name: getattr(options, name) for name in asked}, **result})
    return 0


def measured(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Seconds of all contenders, ratios, and whether all trials are what they are alone."""
    store = write_store(folder / "features.zarr", options.rows)
    kinds = {kind: settings(kind)[: options.trials] for kind in TARGETS}
    contest = {kind: Contest(store, folder / kind, each, options) for kind, each in kinds.items()}
    contenders: dict[str, Callable[[], float]] = {}
    for kind, each in contest.items():
        contenders |= {f"{kind}: single runs": each.singly, f"{kind}: cohort": each.together}
    contenders["equal: one live pass"] = partial(live_seconds, kinds["equal"], options)
    times = rounds.in_turns(contenders, options.rounds)
    for name, seconds in times.items():
        note(f"{name:22} best {min(seconds):8.2f} s  median {statistics.median(seconds):8.2f} s")
    return {
        "seconds": {name: [round(one, 4) for one in found] for name, found in times.items()},
        "ratios": {kind: verdict(times, kind) for kind in TARGETS},
        "identical": {kind: each.are_identical() for kind, each in contest.items()},
    }


def settings(kind: str) -> list[dict[str, Any]]:
    """Sixteen trials: of one shape, or of four ranks."""
    if kind == "mixed":
        return [{"rank": rank, "lr": lr} for rank in RANKS for lr in RATES]
    return [{"rank": 8, "lr": lr, "seed": seed} for seed in range(4) for lr in RATES]


def verdict(times: rounds.Times, kind: str) -> dict[str, Any]:
    """How a cohort's seconds compare with those of its trials alone."""
    ours, theirs, target = times[f"{kind}: cohort"], times[f"{kind}: single runs"], TARGETS[kind]
    pairs = [one / other for one, other in zip(ours, theirs, strict=True)]
    best, paired = min(ours) / min(theirs), statistics.median(pairs)
    hit = best <= target
    said = rounds.outcome(hit=hit)
    note(f"M6: {best:.3f} (paired {paired:.3f}) {kind}, target {target:g}: {said}")
    return {"best": round(best, 4), "paired": round(paired, 4), "target": target, "hit": hit}


class Contest:
    """The same trials alone and together, in folders that are begun afresh each time."""

    def __init__(
        self,
        store: Path,
        folder: Path,
        several: Sequence[dict[str, Any]],
        options: argparse.Namespace,
    ) -> None:
        self._store = store
        self._folder = folder
        self._several = several
        self._epochs = options.epochs

    def singly(self) -> float:
        """Seconds of all runs, one after the other."""
        configs = self._configs("alone")
        start = time.perf_counter()
        for config in configs:
            adapt(config)
        return time.perf_counter() - start

    def together(self) -> float:
        """Seconds of the cohort."""
        trials = [CohortTrial(config) for config in self._configs("together")]
        start = time.perf_counter()
        adapt_cohort(open_source(self._store), trials)
        return time.perf_counter() - start

    def are_identical(self) -> bool:
        """Whether the weights that val chose are the same files."""
        pairs = [
            [(self._folder / place / str(i) / BEST_NAME).read_bytes() for place in PLACES]
            for i in range(len(self._several))
        ]
        return all(alone == together for alone, together in pairs)

    def _configs(self, place: str) -> list[AdaptConfig]:
        shutil.rmtree(self._folder / place, ignore_errors=True)
        common = {"store": self._store, "epochs": self._epochs, "device": "cpu", "data_seed": 0}
        return [
            AdaptConfig(**common, **one, out=self._folder / place / str(number))
            for number, one in enumerate(self._several)
        ]


PLACES: Final = ("alone", "together")


def live_seconds(several: Sequence[dict[str, Any]], options: argparse.Namespace) -> float:
    """Seconds of one epoch beside the backbone, with a head for each trial, times the epochs."""
    compute = resolve_compute("cpu", "none")
    request = BackboneRequest("dinov2_s", "random", 112, "every:3", dtype="float16")
    backbone = build_backbone(request, device=compute.device, amp_dtype=None)
    pixels = torch.randint(0, 256, (32, 112, 112, 3), dtype=torch.uint8)
    labels = torch.arange(32) % CLASSES
    steps = -(-options.rows * 9 // 10 // 32)
    configs = [AdaptConfig(**one, epochs=options.epochs) for one in several]
    trials = [
        Trial(LoSA(backbone.spec, rank=one.rank, num_classes=CLASSES), one, steps, compute)
        for one in configs
    ]
    with Crew(compute.device) as crew:
        together = CohortStep(backbone.spec, crew)
        start = time.perf_counter()
        for step in range(steps):
            with torch.inference_mode():
                planes = torch.stack([plane.half() for plane in backbone(pixels)])
            encoded = EncodedPlanes(planes.clone(), "float16", (0,) * len(planes))
            together.learn(trials, encoded, labels, Position(0, step))
        epochs: int = options.epochs
        return (time.perf_counter() - start) * epochs


def write_store(path: Path, rows: int) -> Path:
    """A sealed store of normal random planes of the demo's shape, under random labels."""
    random = np.random.default_rng(0)
    classes = tuple(f"class{number}" for number in range(CLASSES))
    plan = replace(random_plan(DEMO, rows), classes=classes)
    ones = np.ones((len(DEMO.taps), DEMO.channels), np.float32)
    labels = random.integers(0, CLASSES, rows).tolist()
    listed = {"train": [Sample(str(row), str(row), label) for row, label in enumerate(labels)]}
    statistics_ = {"mean": 0 * ones, "std": ones, "absmax": 5 * ones}
    create_store(path, plan, listed, statistics_, durable=False)
    fill(path, random.standard_normal((4, 64, *DEMO.shape[1:])).astype(np.float16))
    return path
