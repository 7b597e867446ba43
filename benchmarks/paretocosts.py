"""What training by one method costs, measured in a process that does nothing else.

Methods that run the backbone have decoded pictures in memory, as in ``benchmarks.online``; cached
ones read their store by ``losa adapt``. The pictures themselves are not counted: a training set
of any size is read from somewhere.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.epochs import Stopwatch
from benchmarks.memory import anonymous
from benchmarks.onlinenets import METHODS, OnlineNet
from benchmarks.onlinetrain import Labelled, Learner, Recipe, decoded
from losa.adapt.adaptor import Adaptor, LoSA
from losa.adapt.options import SideOptions
from losa.adapt.registry import build_adaptor
from losa.adapt.train import adapt
from losa.config import AdaptConfig
from losa.device import Compute, resolve_compute
from losa.extract.backbones import BackboneRequest, build_backbone
from losa.extract.datasets import load_dataset
from losa.extract.vit import ViTBackbone
from losa.store import open_store

LIVE: Final = "losa-live"
EPOCHS: Final = 4
"""Of a training whose costs are measured; the first warms and counts nowhere in its speed."""

_LOOK_SECONDS: Final = 0.003


@dataclass(frozen=True, slots=True)
class Costs:
    """Weights that train (head included), bytes while they do, images a second, FLOPs of one."""

    trainable: int
    memory_bytes: int
    images_per_second: float
    inference_flops: int


class LiveNet(nn.Module):
    """Pixels to logits through the frozen backbone and a side network that trains."""

    def __init__(self, backbone: ViTBackbone, side: Adaptor) -> None:
        super().__init__()
        self.side = side.to(backbone.device)
        # Not a module: what is not of the network does not train, and has no gradients.
        self._backbone = backbone

    def forward(self, pixels: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b y"]:
        """Logits of one batch of decoded images."""
        logits: Float[Tensor, "b y"] = self.side(self._backbone(pixels))
        return logits


class Peak:
    """The most memory that was held within the block, above what was held before it.

    Of a CUDA device what torch allocated; else anonymous memory, looked at every few milliseconds.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_cuda = device.type == "cuda"
        self._most = self._before = 0
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def bytes(self) -> int:
        """What was seen."""
        return self._most - self._before

    def __enter__(self) -> Peak:
        if self._on_cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            self._before = self._most = anonymous()
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._on_cuda:
            self._most = torch.cuda.max_memory_allocated()
        else:
            self._look()  # A short block may end before the thread has looked once.
            self._ends.set()
            self._thread.join()

    def _watch(self) -> None:
        while not self._ends.wait(_LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        self._most = max(self._most, anonymous())


def measured(method: str, folder: Path, options: argparse.Namespace) -> Costs:
    """Costs of one method on the pictures in ``folder``; cached ones read ``options.store``."""
    compute = resolve_compute(options.device, options.amp_dtype)
    if method in METHODS or method == LIVE:
        return _beside_the_backbone(method, folder, options, compute)
    with Peak(compute.device) as peak:
        rate = _cached_rate(method, options)
    spec = open_store(options.store).spec
    backbone = _backbone(options, compute, options.taps)
    images = _pixels(folder, backbone, options)
    side = build_adaptor(method, spec, _classes(images), SideOptions()).to(compute.device)
    pixels = images.pixels[:1]
    trainable = sum(value.numel() for value in side.parameters() if value.requires_grad)
    return Costs(trainable, peak.bytes, rate, flops_beside(backbone, side, pixels))


def flops_beside(backbone: ViTBackbone, side: Adaptor, pixels: UInt8[Tensor, "b h w 3"]) -> int:
    """FLOPs of a forward through the backbone to its last tap and an adaptor, as torch counts.

    LoSA counts by its equation, mixer by mixer, not by the rearranged products of its forward.
    """
    forward = side.plain if isinstance(side, LoSA) else side
    with counted() as counter:
        forward(backbone(pixels))
    return int(counter.get_total_flops())


@contextmanager
def counted() -> Iterator[FlopCounterMode]:
    """Count what runs within the block, without gradients."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        yield counter


def _beside_the_backbone(
    method: str, folder: Path, options: argparse.Namespace, compute: Compute
) -> Costs:
    """Costs of a method that runs the backbone in every step."""
    # From the start, for what was freed before would be had again without being seen.
    with Peak(compute.device) as peak:
        backbone = _backbone(options, compute, options.taps if method == LIVE else "last")
        images = _pixels(folder, backbone, options)
        network = _network(method, backbone, _classes(images))
        # The weight decay of a method means nothing to its costs.
        recipe = Recipe(method if method in METHODS else "full", 1e-6, seed=0, epochs=EPOCHS)
        learner = Learner(network.to(compute.device), recipe, len(images.pixels), compute)
        learner.epoch(images, 0)
        warm = learner.seconds
        for epoch in range(1, EPOCHS):
            learner.epoch(images, epoch)
    rate = (EPOCHS - 1) * len(images.pixels) / (learner.seconds - warm)
    network.eval()
    if isinstance(network, LiveNet):
        flops = flops_beside(backbone, network.side, images.pixels[:1])
    else:
        with counted() as counter:
            network(images.pixels[:1])
        flops = int(counter.get_total_flops())
    trainable = sum(value.numel() for value in learner.trained.values())
    aside = 0 if compute.device.type == "cuda" else images.pixels.nbytes
    return Costs(trainable, peak.bytes - aside, rate, flops)


def _network(method: str, backbone: ViTBackbone, classes: int) -> nn.Module:
    """What trains; of a method that tunes a copy, the original's weights are let go."""
    if method == LIVE:
        return LiveNet(backbone, build_adaptor("losa", backbone.spec, classes, SideOptions()))
    network = OnlineNet(backbone, METHODS[method], classes)
    for value in backbone.model.parameters():
        value.data = value.data.new_empty(0)
    return network


def _cached_rate(method: str, options: argparse.Namespace) -> float:
    """Images a second of an epoch over the store, the median of all epochs but the first."""
    watch = Stopwatch()
    config = AdaptConfig(
        store=options.store,
        out=options.scratch / method,
        adaptor=method,
        epochs=EPOCHS,
        batch_size=options.batch_size,
        device=options.device,
        amp_dtype=options.amp_dtype,
        overwrite=True,
    )
    adapt(config, progress=watch)
    return open_store(options.store).split("train").rows / watch.median


def _backbone(options: argparse.Namespace, compute: Compute, taps: str) -> ViTBackbone:
    request = BackboneRequest(
        options.model, options.weights, options.img_size, taps=taps, dtype="float32"
    )
    found = build_backbone(request, device=compute.device, amp_dtype=compute.amp)
    assert isinstance(found, ViTBackbone)
    return found


def _pixels(folder: Path, backbone: ViTBackbone, options: argparse.Namespace) -> Labelled:
    """The first pictures of train, decoded, and the labels of all of them."""
    dataset = load_dataset(f"folder:{folder}", Path(), splits=("train",), seed=0)
    listed = dataset.splits["train"]
    few = replace(dataset, splits={"train": listed[: options.cost_images]})
    found = decoded(few, backbone.preprocessing, options.num_workers, ("train",))["train"]
    return Labelled(found.pixels, torch.tensor([sample.label for sample in listed]))


def _classes(images: Labelled) -> int:
    return int(images.labels.max()) + 1
