"""The course of one trial: where it stands, when it is over, what it has cost, and its files.

Whoever holds batches and scores drives it; a run of its own and a cohort do so in the same way.
"""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import torch

from losa.adapt.checkpoint import save_weights
from losa.adapt.objective import Metrics
from losa.adapt.registry import trainable_parameters
from losa.adapt.report import AdaptReport, environment
from losa.adapt.rundir import RunDir
from losa.adapt.snapshot import Snapshot, load_snapshot, save_snapshot
from losa.adapt.trial import Position, Trial, diverged
from losa.adapt.usage import Clock, Usage
from losa.errors import StoreError

log = logging.getLogger(__name__)


class Course:
    """One trial in its folder, from wherever it stands to its report.

    Args:
        run: its folder, claimed.
        trial: its module, its optimiser, its configuration.
        samples: of an epoch.
        clock: what its seconds are counted by.
    """

    def __init__(
        self, run: RunDir, trial: Trial, samples: int, clock: Clock = time.monotonic
    ) -> None:
        self.run = run
        self.trial = trial
        self.position = Position()
        self._samples = samples
        self._clock = clock
        self.usage = Usage(trial.compute.device, clock=clock)
        self._saved_at = time.monotonic()

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return -(-self._samples // self.trial.config.batch_size)

    @property
    def is_over(self) -> bool:
        """Whether no epoch is left, or patience is not."""
        best, patience = self.trial.best, self.trial.config.patience
        if best is not None and patience is not None:
            without = self.position.epoch - 1 - best.first_epoch
            if without >= max(patience, 1):
                return True
        return self.position.epoch >= self.trial.config.epochs

    def stepped(self, samples: int, seconds: float) -> None:
        """The step at the position is taken, on so many samples and in so many seconds."""
        self.position = Position(self.position.epoch, self.position.step + 1)
        self.usage.samples += samples
        self.usage.train_seconds += seconds

    def save_if_due(self) -> None:
        """Save, if the last time is long ago."""
        if time.monotonic() - self._saved_at >= self.trial.config.checkpoint_seconds:
            self.save()

    def check(self) -> None:
        """Make sure that all is finite.

        Raises:
            InputError: a loss or a weight is not.
        """
        self.trial.check(self.position, is_saved=self.run.last.exists())

    def end_epoch(self, val: Metrics | None) -> float:
        """Choose, record and save after the last step of an epoch; returns its mean loss.

        Raises:
            InputError: the training has left the finite numbers.
        """
        epoch, trial, run = self.position.epoch, self.trial, self.run
        loss = trial.train_loss(self._batch_sizes())
        if not (math.isfinite(loss) and (val is None or math.isfinite(val.loss))):
            raise diverged(self.position, is_saved=run.last.exists())
        is_best = trial.keep_if_best(epoch, val)
        line = {
            "epoch": epoch + 1,
            "step": (epoch + 1) * self.steps,
            "lr": trial.lr(Position(epoch, self.steps - 1)),
            "train_loss": loss,
            "val": val and val.to_json(),
            "is_best": is_best,
        }
        run.append_metrics(line)
        if is_best:
            save_weights(run.best, trial.judged, run.card.metadata)
        self.position = Position(epoch + 1, 0)
        self.save()
        return loss

    def choose(self) -> None:
        """Go to the weights that val chose, or to the last; there is no way back."""
        best = self.trial.best
        assert best is not None
        self.trial.judged.load_state_dict(dict(best.weights))

    def report(self, test: Metrics | None) -> AdaptReport:
        """Sum up the run; ``test`` is what the chosen weights scored."""
        best, trial = self.trial.best, self.trial
        assert best is not None
        metrics = {} if best.metrics is None else {"val": best.metrics.to_json()}
        if test is not None:
            metrics["test"] = test.to_json()
        self.usage.sample()
        return AdaptReport(
            config=trial.config.model_dump(mode="json"),
            store_id=self.run.card.store_id,
            metrics=metrics,
            parameters={"trainable": trainable_parameters(trial.module)},
            timing=self.usage.timing(self.position.epoch),
            memory=self.usage.memory(),
            environment=environment(trial.compute),
            chosen_by="nothing" if best.metrics is None else "val",
        )

    def save(self) -> None:
        """Write a snapshot, but never over the last finite state.

        Raises:
            InputError: the training has left the finite numbers.
        """
        self.check()
        self.usage.sample()
        found = self.trial.snapshot(self.position)
        state = {
            **found.state,
            "metrics_bytes": self.run.metrics_bytes(),
            "usage": self.usage.to_json(),
        }
        save_snapshot(self.run.last, Snapshot(found.tensors, state), self.run.card.digest)
        self._saved_at = time.monotonic()

    def resume(self) -> None:
        """Make memory and files what they were when the last snapshot was written.

        Raises:
            StoreError: a file of the run is damaged.
        """
        snapshot = load_snapshot(self.run.last, self.run.card.digest)
        if snapshot is not None:
            self._restore(snapshot)
            log.info("resuming at epoch %d, step %d", self.position.epoch + 1, self.position.step)
        else:
            self.run.rewind_metrics(0)
        self._rewrite_best()

    def _restore(self, snapshot: Snapshot) -> None:
        state: Any = snapshot.state
        try:
            self.position = self.trial.restore(snapshot)
            self.run.rewind_metrics(state["metrics_bytes"])
            self.usage = Usage(self.trial.compute.device, state["usage"], clock=self._clock)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise StoreError(
                self.run.last, f"is damaged: {reason}", "train again with --overwrite"
            ) from None

    def _rewrite_best(self) -> None:
        """A kill between two files may have left better weights than the snapshot knows of."""
        best = self.trial.best
        if best is None:
            self.run.best.unlink(missing_ok=True)
            return
        module = self.trial.judged
        now = {name: value.clone() for name, value in module.state_dict().items()}
        module.load_state_dict(dict(best.weights))
        save_weights(self.run.best, module, self.run.card.metadata)
        module.load_state_dict(now)

    def _batch_sizes(self) -> torch.Tensor:
        samples, size = self._samples, self.trial.config.batch_size
        return torch.tensor([min(size, samples - i) for i in range(0, samples, size)])
