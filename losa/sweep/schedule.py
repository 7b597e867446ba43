"""What is left to train of a sweep, seen from its files: every process comes to the same answer.

Source of successive halving: Jamieson and Talwalkar, arXiv 1502.07943; here every trial of a rung
is waited for, so that which go on does not depend on who was faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from losa.sweep.folder import SweepFolder
from losa.sweep.results import Standing, standing, stop_of
from losa.sweep.strategy import Halving
from losa.sweep.trials import SweepTrial


@dataclass(frozen=True, slots=True)
class Pending:
    """A trial that is to be trained as far as an epoch, or to its end."""

    trial: SweepTrial
    stop_epoch: int | None = None


@runtime_checkable
class Schedule(Protocol):
    """The trials of a sweep, and what is left of them."""

    @property
    def total(self) -> int:
        """How many trials there will be."""
        ...

    def trials(self) -> Sequence[SweepTrial]:
        """The trials that are known by now."""
        ...

    def pending(self) -> list[Pending]:
        """What is to be trained now, others' share included; nothing: all has been."""
        ...


class All:
    """Every trial to its end."""

    def __init__(self, folder: SweepFolder, trials: Sequence[SweepTrial]) -> None:
        self._folder = folder
        self._trials = trials

    @property
    def total(self) -> int:
        """How many trials there are."""
        return len(self._trials)

    def trials(self) -> Sequence[SweepTrial]:
        """All of them."""
        return self._trials

    def pending(self) -> list[Pending]:
        """Those without a result."""
        return [Pending(t) for t in self._trials if self._folder.result(t.digest) is None]


class Halved:
    """Every trial to the first rung; of each rung one in ``eta`` to the next, or to its end."""

    def __init__(
        self, folder: SweepFolder, trials: Sequence[SweepTrial], halving: Halving, store_id: str
    ) -> None:
        self._folder = folder
        self._trials = trials
        self._halving = halving
        self._store_id = store_id

    @property
    def total(self) -> int:
        """How many trials there are."""
        return len(self._trials)

    def trials(self) -> Sequence[SweepTrial]:
        """All of them."""
        return self._trials

    def pending(self) -> list[Pending]:
        """Those of the first rung that some have not reached; those left behind get a result."""
        left = list(self._trials)
        for rung in self._halving.rungs:
            reached = {trial.digest: self._standing(trial, rung) for trial in left}
            missing = [
                Pending(trial, rung if rung < trial.config.epochs else None)
                for trial in left
                if reached[trial.digest] is None and self._folder.result(trial.digest) is None
            ]
            if missing:
                return missing
            left = self._go_on(left, rung)
        return [Pending(trial) for trial in left if self._folder.result(trial.digest) is None]

    def _go_on(self, trials: Sequence[SweepTrial], rung: int) -> list[SweepTrial]:
        found = [(self._standing(trial, rung), trial) for trial in trials]
        alive = [(how, trial) for how, trial in found if how is not None]
        alive.sort(key=lambda item: (*(-value for value in item[0]), item[1].number))
        kept = max(1, len(trials) // self._halving.eta)
        for _, trial in alive[kept:]:
            mark = self._folder.mark(trial.digest, rung)
            if mark is not None and self._folder.result(trial.digest) is None:
                self._folder.finish(stop_of(trial, self._store_id, mark))
        return sorted((trial for _, trial in alive[:kept]), key=lambda trial: trial.number)

    def _standing(self, trial: SweepTrial, rung: int) -> Standing | None:
        """How a trial stood at a rung, which one that ended before takes its end for."""
        mark = self._folder.mark(trial.digest, rung)
        if mark is not None:
            return standing(mark["val"])
        result = self._folder.result(trial.digest)
        return result.standing if result is not None and result.status == "complete" else None
