"""One training of an online rival: pixels in memory, AdamW with warm-up and cosine, best on val."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody reads
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from benchmarks.onlinenets import METHODS, OnlineNet
from losa.adapt.optim import build_optimiser, cosine_lr, set_lr
from losa.device import Compute
from losa.errors import InputError
from losa.extract.datasets import Dataset
from losa.extract.decode import DecodePool
from losa.extract.transforms import Preprocessing
from losa.extract.vit import ViTBackbone

SPLITS: Final = ("train", "val", "test")
_DECODED: Final = 64
"""Images that are decoded at a time, and pass through the network in evaluation."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """Decoded images of a split and their classes, in the listing's order."""

    pixels: UInt8[Tensor, "n h w 3"]
    labels: Int64[Tensor, "n"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a training depends on, beside backbone and data.

    ``smoothing`` of labels and ``clip`` of the gradient's norm are those of ``losa adapt``.
    """

    method: str
    lr: float
    seed: int
    epochs: int
    batch_size: int = 32
    warmup: float = 0.1
    smoothing: float = 0.1
    clip: float = 1.0


@dataclass(frozen=True, slots=True)
class Score:
    """Top-1 in 0..1 and mean cross-entropy of a split."""

    top1: float
    loss: float

    def improves_on(self, other: Score | None) -> bool:
        """A higher top-1, or the same later on, as ``losa adapt`` chooses among epochs."""
        return other is None or self.top1 >= other.top1


def decoded(
    dataset: Dataset,
    preprocessing: Preprocessing,
    workers: int,
    splits: tuple[str, ...] = SPLITS,
) -> dict[str, Labelled]:
    """All images of some splits, decoded once.

    Raises:
        InputError: one cannot be decoded, or a split is missing.
    """
    found = {}
    for split in splits:
        if split not in dataset.splits:
            raise InputError(dataset.name, f"has no {split} split", "give one that has")
        samples = dataset.splits[split]
        starts = range(0, len(samples), _DECODED)
        groups = [[dataset.media(one) for one in samples[at : at + _DECODED]] for at in starts]
        parts = []
        with DecodePool(preprocessing, workers=workers) as pool:
            for at, batch in zip(starts, pool.batches(groups, pad_to=_DECODED), strict=True):
                for failure in batch.failures:
                    path = samples[at + failure.position].path
                    raise InputError(path, failure.message, "mend or remove it")
                parts.append(torch.from_numpy(batch.pixels))
        labels = torch.tensor([sample.label for sample in samples])
        found[split] = Labelled(torch.cat(parts)[: len(samples)], labels)
    return found


def train(
    backbone: ViTBackbone, data: Mapping[str, Labelled], recipe: Recipe, compute: Compute
) -> dict[str, Any]:
    """Train one network; test is scored once, with the weights of the epoch that val chose.

    A loss that is not finite ends the training; what val chose before stands.
    """
    torch.manual_seed(recipe.seed)
    method = METHODS[recipe.method]
    classes = int(max(part.labels.max() for part in data.values())) + 1
    network = OnlineNet(backbone, method, classes)
    learner = Learner(network, recipe, len(data["train"].labels), compute)
    best, chosen, weights, curve = None, -1, {}, []
    started = time.perf_counter()
    for epoch in range(recipe.epochs):
        loss = learner.epoch(data["train"], epoch)
        score = learner.score(data["val"])
        if not (math.isfinite(loss) and math.isfinite(score.loss)):
            break
        curve.append({"train_loss": loss, **asdict(score)})
        if score.improves_on(best):
            best, chosen, weights = score, epoch, learner.weights()
    seconds = time.perf_counter() - started
    network.load_state_dict(weights, strict=False)
    test = learner.score(data["test"])
    return {
        "val": None if best is None else asdict(best),
        "test": None if best is None else asdict(test),
        "best_epoch": chosen + 1,
        "trainable": sum(value.numel() for value in learner.trained.values()),
        "seconds": round(seconds, 3),
        "seconds_per_epoch": round(learner.seconds / max(1, learner.epochs), 3),
        "curve": curve,
    }


class Learner:
    """A network in training: its optimiser, its schedule, and what it does in an epoch."""

    def __init__(self, network: nn.Module, recipe: Recipe, samples: int, compute: Compute) -> None:
        self.network = network
        self.trained = {n: v for n, v in network.named_parameters() if v.requires_grad}
        self.seconds, self.epochs = 0.0, 0
        self._recipe = recipe
        self._samples = samples
        self._compute = compute
        decay = METHODS[recipe.method].weight_decay
        self._optimiser = build_optimiser(network, lr=recipe.lr, weight_decay=decay)

    def epoch(self, part: Labelled, epoch: int) -> float:
        """One pass over the train images in the epoch's own order; the mean loss."""
        started = time.perf_counter()
        self.network.train()
        total = torch.zeros((), device=self._compute.device)
        steps = -(-self._samples // self._recipe.batch_size)
        for number, rows in enumerate(self._batches(epoch)):
            self._set_lr(epoch * steps + number, steps)
            pixels, labels = self._moved(part.pixels[rows], part.labels[rows])
            total += self._step(pixels, labels).detach() * len(rows)
        mean = float(total) / self._samples
        self.seconds += time.perf_counter() - started
        self.epochs += 1
        return mean

    @torch.no_grad()
    def score(self, part: Labelled) -> Score:
        """Top-1 and loss of a split."""
        self.network.eval()
        right, loss = 0, 0.0
        for at in range(0, len(part.labels), _DECODED):
            rows = slice(at, at + _DECODED)
            pixels, labels = self._moved(part.pixels[rows], part.labels[rows])
            with self._compute.autocast():
                logits = self.network(pixels)
            right += int((logits.argmax(1) == labels).sum())
            loss += float(F.cross_entropy(logits.float(), labels, reduction="sum"))
        return Score(right / len(part.labels), loss / len(part.labels))

    def weights(self) -> dict[str, Tensor]:
        """A copy of what is trained; the rest never changes."""
        return {name: value.detach().clone() for name, value in self.trained.items()}

    def _step(
        self, pixels: UInt8[Tensor, "b h w 3"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, ""]:
        with self._compute.autocast():
            logits = self.network(pixels)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=self._recipe.smoothing)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stubs
        nn.utils.clip_grad_norm_(self.trained.values(), self._recipe.clip)
        self._optimiser.step()
        return loss

    def _batches(self, epoch: int) -> Iterator[Int64[Tensor, "b"]]:
        generator = np.random.default_rng((self._recipe.seed, epoch))
        order = generator.permutation(self._samples)
        for first in range(0, self._samples, self._recipe.batch_size):
            yield torch.from_numpy(order[first : first + self._recipe.batch_size])

    def _set_lr(self, step: int, steps: int) -> None:
        recipe = self._recipe
        total = recipe.epochs * steps
        warmup = round(recipe.warmup * total)
        set_lr(self._optimiser, cosine_lr(step, lr=recipe.lr, warmup_steps=warmup, steps=total))

    def _moved(
        self, pixels: UInt8[Tensor, "b h w 3"], labels: Int64[Tensor, "b"]
    ) -> tuple[UInt8[Tensor, "b h w 3"], Int64[Tensor, "b"]]:
        device = self._compute.device
        return pixels.to(device), labels.to(device)
