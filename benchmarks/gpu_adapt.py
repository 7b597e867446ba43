"""M12: on CUDA, what do a training step and an epoch of ``adapt`` cost?

Question: how long does a step of the side network take on a GPU, against the plain module and the
floor of M13; and how much of the speed of the slowest part alone has an epoch that reads a store?
Method: planes shaped like ViT-g's (257 x 1408, float16, bfloat16 autocast). The parts of an epoch,
each alone and in the same interleaved rounds: copies of every batch from pinned memory to the
device (PCIe), the reader filling its buffers without a device (disk; the files are in the page
cache unless the store is larger than memory), and training steps on a batch that lies on the device
(network). The epoch is a FeatureLoader on a ring that feeds a Trial, as ``adapt`` does.
Ratio against: the slowest part (target >= 0.85). Without a CUDA device one line says so, and
nothing is written.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from benchmarks import rounds
from benchmarks.record import note, publish
from benchmarks.sidestep import (
    GEMM,
    Shape,
    Step,
    batch_of,
    copying,
    decoded_first,
    multiplying,
    network,
    seconds,
)
from benchmarks.stores import random_plan, random_planes, random_store, scratch
from losa.adapt.adaptor import LoSA
from losa.adapt.loader import FeatureLoader
from losa.adapt.ring import RingOptions, ring_on
from losa.adapt.trial import Position, Trial
from losa.config import AdaptConfig
from losa.device import resolve_compute
from losa.features import FeatureSpec, TokenGrid
from losa.precision import EncodedPlanes
from losa.store import open_store

VIT_G: Final = FeatureSpec("vit_g", (9, 19, 29, 39), TokenGrid(16, 16, prefix=1), 1408)
LEAST_SPEED: Final = 0.85
PARTS: Final = ("PCIe", "disk", "network")
WHOLE: Final = "epoch of adapt"


def main(argv: list[str]) -> int:
    """Measure, print tables, and publish ``results/gpu_adapt.json``; or say why not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu_adapt")
    parser.add_argument("--rows", type=int, default=2048, help="rows of the store (2.9 MB each)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=8, help="that read")
    parser.add_argument("--dir", type=Path, default=None, help="where the store is written")
    options = parser.parse_args(argv)
    if not torch.cuda.is_available():
        note("M12: not measured: torch sees no CUDA device here")
        return 0
    device = torch.device("cuda")
    taps, tokens, channels = VIT_G.shape
    steps = step_times(Shape(taps, tokens, channels, options.batch_size), device, options.rounds)
    with scratch(options.dir) as folder:
        planes = random_planes(VIT_G, options.batch_size)
        path = random_store(folder / "store", random_plan(VIT_G, options.rows), planes)
        epochs = measured(path, options, device)
    facts = {"device": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    publish("gpu_adapt", argv, facts | {"step": steps, **epochs})
    return 0


def step_times(shape: Shape, device: torch.device, rounds_: int) -> dict[str, Any]:
    """M13's comparison on a device, under bfloat16 autocast."""
    planes = batch_of(shape, "float16", device)
    plain, fused = network(shape, device), network(shape, device)
    steps = {
        "plain eager": Step(plain, autocast(decoded_first(plain.plain), device), planes),
        "losa": Step(fused, autocast(fused, device), planes),
    }
    every: dict[str, Callable[[], Any]] = dict(steps)
    every |= {"copy": copying(planes), "product": multiplying(device, torch.bfloat16)}
    runs = {name: partial(seconds, run, 10, device) for name, run in every.items()}
    for warm_up in runs.values():
        warm_up()
    times = rounds.in_turns(runs, rounds_)
    table = rounds.table(times, planes.raw.nbytes)
    share = min(shape.fused_flops(), shape.plain_flops()) * shape.batch / (2 * GEMM**3)
    floor = max(min(times["copy"]), min(times["product"]) * share)
    kept = {name: step.saved_bytes() // shape.batch for name, step in steps.items()}
    return {
        "seconds": table,
        "to_plain": rounds.ratio(times, "plain eager", "losa"),
        "of_floor": min(times["losa"]) / floor,
        "kept_bytes_a_sample": kept,
        "hidden_bytes": shape.hidden_bytes,
    }


def autocast(
    logits: Callable[[EncodedPlanes], torch.Tensor], device: torch.device
) -> Callable[[EncodedPlanes], torch.Tensor]:
    """The same under bfloat16 autocast."""

    def run(planes: EncodedPlanes) -> torch.Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            return logits(planes)

    return run


def measured(path: Path, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Seconds of an epoch's parts and of the whole, and what share of the slowest it has."""
    epoch = Epoch(path, options, device)
    runs = dict(zip(PARTS, (epoch.copies, epoch.reads, epoch.steps), strict=True))
    runs[WHOLE] = epoch.whole
    for warm_up in runs.values():
        warm_up()
    times = rounds.in_turns(runs, options.rounds)
    table = rounds.table(times, options.rows * VIT_G.sample_bytes)
    slowest = max(PARTS, key=lambda part: min(times[part]))
    what = f"of the slowest part ({slowest})"
    share = rounds.verdict("M12", rounds.ratio(times, slowest, WHOLE), what, LEAST_SPEED)
    return {"seconds": table, "slowest": slowest, "share": share, "hits": {"share": share["hit"]}}


class Epoch:
    """An epoch over a store, and its parts: each method is one pass and returns its seconds."""

    def __init__(self, path: Path, options: argparse.Namespace, device: torch.device) -> None:
        self._store = open_store(path)
        self._split = self._store.split("train")
        self._options, self._device = options, device
        self._compute = resolve_compute(device.type, "auto")
        config = AdaptConfig(store=path, epochs=1000, batch_size=options.batch_size)
        steps = -(-options.rows // options.batch_size)
        self._trial = Trial(LoSA(VIT_G, num_classes=10), config, steps, self._compute)

    def whole(self) -> float:
        """The loader feeds the trial."""
        with self._ring(self._device) as ring:
            loader = self._loader(ring)
            start = self._now()
            for step, batch in enumerate(loader.epoch(0)):
                self._trial.step(loader.planes(batch), batch.labels, Position(0, step))
            return self._now() - start

    def reads(self) -> float:
        """The reader alone, into buffers on the host."""
        with self._ring(torch.device("cpu")) as ring:
            loader = self._loader(ring)
            start = self._now()
            for _ in loader.epoch(0):
                pass
            return self._now() - start

    def copies(self) -> float:
        """Copies of as many batches from pinned memory to the device."""
        size = (len(VIT_G.taps), self._options.batch_size, *VIT_G.shape[1:])
        pinned = torch.empty(size, dtype=torch.float16, pin_memory=True)
        room = torch.empty(size, dtype=torch.float16, device=self._device)
        start = self._now()
        for _ in range(0, self._options.rows, self._options.batch_size):
            room.copy_(pinned, non_blocking=True)
        return self._now() - start

    def steps(self) -> float:
        """As many training steps on a batch that lies on the device."""
        shape = Shape(*VIT_G.shape, self._options.batch_size)
        planes = batch_of(shape, "float16", self._device)
        labels = torch.zeros(shape.batch, dtype=torch.int64, device=self._device)
        start = self._now()
        for step in range(-(-self._options.rows // self._options.batch_size)):
            self._trial.step(planes, labels, Position(0, step))
        return self._now() - start

    def _ring(self, device: torch.device) -> Any:
        options = RingOptions(self._options.batch_size, device, self._options.threads)
        return ring_on(self._store, VIT_G.taps, options)

    def _loader(self, ring: Any) -> FeatureLoader:
        return FeatureLoader(self._split, np.arange(self._options.rows), ring, shuffle=True)

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
