"""One setting in training: a module, its optimiser, and what it does with a batch.

A trial neither reads nor schedules: whoever holds the batches may give each to many trials.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from losa.adapt import optim
from losa.adapt.clipwindow import Taken, blended
from losa.adapt.ema import WeightAverage
from losa.adapt.objective import ClassObjective, Metrics, Mixing, Objective
from losa.adapt.snapshot import Snapshot
from losa.config import AdaptConfig
from losa.device import Compute
from losa.errors import InputError
from losa.precision import EncodedPlanes

MANY_SKIPPED: Final = 64
"""Steps that loss scaling may skip in a row: from 2**16 it has come down to 2**-48 by then."""


@dataclass(frozen=True, slots=True)
class Position:
    """The next step to take: ``step`` batches of ``epoch`` are done, both counted from zero."""

    epoch: int = 0
    step: int = 0


@dataclass(frozen=True, eq=False)
class Best:
    """The weights that val has chosen so far, what they scored, and who first scored as much.

    Without a val they are the last epoch's, and have no metrics.
    """

    epoch: int
    metrics: Metrics | None
    weights: Mapping[str, Tensor]
    first_epoch: int


def step_seed(seed: int, position: Position) -> int:
    """Seed of all random numbers of a step, so that a resume needs no generator's state."""
    text = f"{seed}/{position.epoch}/{position.step}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8]) >> 1


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed the generators of the CPU and of ``device``.

    ``torch.manual_seed`` would also note a stack trace for every kind of device there could be: a
    millisecond a step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


class Trial:
    """A module on its device with an optimiser; :meth:`step` learns from one batch.

    Args:
        module: any network from planes to logits.
        config: the recipe; where the data lie is not looked at.
        steps: batches of an epoch.
        compute: device and autocast.
        objective: loss and metrics; ``None``: one class a sample, scored by somebody else.
    """

    def __init__(
        self,
        module: nn.Module,
        config: AdaptConfig,
        steps: int,
        compute: Compute,
        *,
        objective: Objective | None = None,
    ) -> None:
        self.module = module.to(compute.device)
        self.objective = objective or ClassObjective(
            0, smoothing=config.label_smoothing, device=compute.device
        )
        self.best: Best | None = None
        self._average = WeightAverage(self.module, config.ema) if config.ema is not None else None
        self.config = config
        self._steps = steps
        self.compute = compute
        self._optimiser = optim.build_optimiser(
            self.module,
            lr=config.lr,
            weight_decay=config.weight_decay,
            head=optim.head_rates(config),
        )
        self._is_scaled = compute.amp == torch.float16
        self._scaler = torch.amp.GradScaler(compute.device.type, enabled=self._is_scaled)
        self._parameters = [p for p in self.module.parameters() if p.requires_grad]
        # On the device, one a step of the running epoch: nothing waits for a loss to be read.
        self._losses = torch.zeros(steps, device=compute.device)
        # How many steps up to now, without one between, loss scaling has skipped.
        self._skipped = torch.zeros((), dtype=torch.int64, device=compute.device)

    @property
    def judged(self) -> nn.Module:
        """What val chooses from and a run keeps: the averaged weights if there are, else all."""
        return self._average.module if self._average else self.module

    def lr(self, position: Position) -> float:
        """Learning rate of a step."""
        return optim.cosine_lr(
            position.epoch * self._steps + position.step,
            lr=self.config.lr,
            warmup_steps=round(self.config.warmup_epochs * self._steps),
            steps=self.config.epochs * self._steps,
        )

    def step(
        self,
        planes: Float[Tensor, "k b l d"] | EncodedPlanes,
        labels: Int64[Tensor, "b"],
        position: Position,
    ) -> None:
        """Learn from one batch. The loss stays on the device; see :meth:`check`."""
        seed = self.seed(position)
        seed_generators(seed, self.compute.device)
        self.module.train()
        self.finish(self.backward(self._loss(planes, labels, seed)), position)

    def seed(self, position: Position) -> int:
        """Seed of all random numbers of a step."""
        return step_seed(self.config.seed, position)

    def backward(self, loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Gradients of a loss instead of those there were; returns the loss."""
        self._optimiser.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch's stubs
        return loss.detach()

    def finish(self, loss: Float[Tensor, ""], position: Position) -> None:
        """Take the step whose gradients are there, and note its loss."""
        optim.set_lr(self._optimiser, self.lr(position))
        self._scaler.unscale_(self._optimiser)
        norm = nn.utils.clip_grad_norm_(self._parameters, self.config.clip)
        if self._is_scaled:
            self._skipped = (self._skipped + 1) * ~norm.isfinite()
        self._scaler.step(self._optimiser)
        self._scaler.update()
        if self._average:
            self._average.follow(position.epoch * self._steps + position.step)
        self._losses[position.step] = loss

    def train_loss(self, batch_sizes: Int64[Tensor, "..."]) -> float:
        """Mean loss a sample of an epoch whose batches had these sizes.

        Losses that loss scaling has passed over do not count; it is NaN if that were all.
        """
        sizes, losses = batch_sizes.double(), self._losses.cpu().double()
        if self._is_scaled:
            sizes, losses = sizes[losses.isfinite()], losses[losses.isfinite()]
        return float((losses * sizes).sum() / sizes.sum())

    def check(self, position: Position, *, is_saved: bool = False) -> None:
        """Make sure that all is finite before ``position``; the one place that waits for a loss.

        With loss scaling an infinite loss costs its step and nothing else, so there only a weight
        or many skipped steps in a row count.

        Raises:
            InputError: a loss or a weight is not finite; ``is_saved``, an earlier state is kept.
        """
        if self._is_scaled:
            if int(self._skipped) >= MANY_SKIPPED:
                raise diverged(position, is_saved=is_saved)
        elif len(bad := torch.nonzero(~self._losses[: position.step].isfinite())):
            raise diverged(Position(position.epoch, int(bad[0])), is_saved=is_saved)
        if not torch.stack([weight.isfinite().all() for weight in self._parameters]).all():
            raise diverged(position, is_saved=is_saved)

    def keep_if_best(self, epoch: int, metrics: Metrics | None) -> bool:
        """Keep a copy of the weights if none before scored better; ``None``: in any case.

        Of equals the later: a small val set has many ties, an early one is luck more often, and
        annealed weights hold up better on other data (docs/log.md).
        """
        before, first = self.best, epoch
        if before is not None and before.metrics is not None and metrics is not None:
            if metrics.criterion < before.metrics.criterion:
                return False
            if metrics.criterion == before.metrics.criterion:
                first = before.first_epoch
        weights = {name: value.clone() for name, value in self.judged.state_dict().items()}
        self.best = Best(epoch, metrics, weights, first)
        return True

    def snapshot(self, position: Position) -> Snapshot:
        """All that a resume at ``position`` needs."""
        groups: dict[str, Mapping[str, Tensor]] = {
            "weights": self.module.state_dict(),
            "moments": optim.moments(self._optimiser, self.module),
            "ema": self._average.weights() if self._average else {},
            "best": self.best.weights if self.best else {},
            "running": {"losses": self._losses, "skipped": self._skipped},
        }
        best = self.best and {
            "epoch": self.best.epoch,
            "first_epoch": self.best.first_epoch,
            "metrics": self.best.metrics and self.best.metrics.to_json(),
        }
        state = {
            "epoch": position.epoch,
            "step": position.step,
            "best": best,
            "scaler": self._scaler.state_dict(),
        }
        tensors = {f"{group}/{name}": t for group, ts in groups.items() for name, t in ts.items()}
        return Snapshot(tensors, state)

    def restore(self, snapshot: Snapshot) -> Position:
        """Go back to what :meth:`snapshot` gave; returns its position.

        Raises:
            KeyError: the snapshot lacks something.
            RuntimeError: its tensors are not this module's.
            TypeError: its metrics are not this task's.
            ValueError: its moments are not this module's.
        """
        state: Mapping[str, Any] = snapshot.state
        self.module.load_state_dict(snapshot.group("weights"))
        optim.load_moments(self._optimiser, self.module, snapshot.group("moments"))
        if self._average:
            self._average.restore(snapshot.group("ema"))
        self._losses.copy_(snapshot.tensors["running/losses"])
        self._skipped.copy_(snapshot.tensors["running/skipped"])
        self._scaler.load_state_dict(state["scaler"])
        if state["best"] is not None:
            values = state["best"]["metrics"]
            metrics = None if values is None else self.objective.metrics_of(values)
            device = self.compute.device
            weights = {name: value.to(device) for name, value in snapshot.group("best").items()}
            epochs = state["best"]["epoch"], state["best"]["first_epoch"]
            self.best = Best(epochs[0], metrics, weights, epochs[1])
        return Position(state["epoch"], state["step"])

    def _loss(
        self,
        planes: Float[Tensor, "k b l d"] | EncodedPlanes,
        labels: Int64[Tensor, "b"],
        seed: int,
    ) -> Float[Tensor, ""]:
        mixing = None
        seen: Float[Tensor, "k b l d"] | EncodedPlanes | Taken = planes
        if self.config.mixup:
            share, partner = _mixing(self.config.mixup, len(labels), seed)
            mixing = Mixing(share, moved(partner, labels.device))
            seen = blended(self.module, planes, mixing.others, share)
        with self.compute.autocast():
            logits = self.module(seen)
        return self.objective.loss(logits.float(), labels, mixing)


def diverged(position: Position, *, is_saved: bool) -> InputError:
    """The error of a training that has left the finite numbers."""
    left = "the last finite state is kept" if is_saved else "nothing was saved yet"
    return InputError(
        f"epoch {position.epoch + 1}, step {position.step + 1}",
        f"loss or weights are not finite ({left})",
        "lower --lr, or `clip` of --config, or use --amp-dtype none,"
        " with --overwrite or another --out",
    )


def moved(indices: Int64[Tensor, "b"], device: torch.device) -> Int64[Tensor, "b"]:
    """Indices on a device, without waiting for what it is doing."""
    if device.type != "cuda":
        return indices.to(device)
    return indices.pin_memory().to(device, non_blocking=True)


def _mixing(alpha: float, batch: int, seed: int) -> tuple[float, Int64[Tensor, "b"]]:
    """Share of a sample that stays, and the sample that gives the rest.

    Source: mixup (arXiv 1710.09412), section 2.
    """
    random = np.random.Generator(np.random.Philox(key=seed))
    return float(random.beta(alpha, alpha)), torch.from_numpy(random.permutation(batch))
