"""What is left to train of a sweep, seen from its files: every process comes to the same answer.

Source of successive halving: Jamieson and Talwalkar, arXiv 1502.07943; here every trial of a rung
is waited for, so that which go on does not depend on who was faster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from losa.adapt.choice import Repetition, order_of, setting_key
from losa.sweep.folder import SweepFolder
from losa.sweep.results import stop_of
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
    """Every setting to the first rung; of each rung one in ``eta`` to the next, or to its end.

    A setting goes on with all its seeds or with none: its mean is compared, and of a few that were
    lucky it would not be one.
    """

    def __init__(
        self, folder: SweepFolder, trials: Sequence[SweepTrial], halving: Halving, store_id: str
    ) -> None:
        self._folder = folder
        self._trials = trials
        self._halving = halving
        self._store_id = store_id
        groups: dict[bytes, list[SweepTrial]] = {}
        for trial in trials:
            key = setting_key(trial.config.model_dump(mode="json"))
            groups.setdefault(key, []).append(trial)
        self._settings = list(groups.values())

    @property
    def total(self) -> int:
        """How many trials there are."""
        return len(self._trials)

    def trials(self) -> Sequence[SweepTrial]:
        """All of them."""
        return self._trials

    def pending(self) -> list[Pending]:
        """Those of the first rung that some have not reached; those left behind get a result."""
        left = self._settings
        for rung in self._halving.rungs:
            missing = [
                Pending(trial, rung if rung < trial.config.epochs else None)
                for trial in _in_order(left)
                if self._folder.result(trial.digest) is None
                and self._folder.mark(trial.digest, rung) is None
            ]
            if missing:
                return missing
            left = self._go_on(left, rung)
        return [
            Pending(trial) for trial in _in_order(left) if self._folder.result(trial.digest) is None
        ]

    def _go_on(self, settings: Sequence[list[SweepTrial]], rung: int) -> list[list[SweepTrial]]:
        """The settings that go on, of which at least one trial has not failed."""
        found = [([self._seen(trial, rung) for trial in trials], trials) for trials in settings]
        alive = [(seen, trials) for seen, trials in found if any(one.is_whole for one in seen)]
        alive.sort(key=lambda item: order_of(item[0]))
        kept = max(1, len(settings) // self._halving.eta)
        for trial in _in_order([trials for _, trials in alive[kept:]]):
            mark = self._folder.mark(trial.digest, rung)
            if mark is not None and self._folder.result(trial.digest) is None:
                self._folder.finish(stop_of(trial, self._store_id, mark))
        return [trials for _, trials in alive[:kept]]

    def _seen(self, trial: SweepTrial, rung: int) -> Repetition:
        """A trial as it stood at a rung, which one that ended before takes its end for."""
        mark, result = self._folder.mark(trial.digest, rung), self._folder.result(trial.digest)
        val: Mapping[str, Any] = {}
        if mark is not None:
            val = mark["val"]
        elif result is not None and result.status == "complete":
            val = result.metrics["val"]
        # By number: of equals the first of the file goes on.
        return Repetition(f"{trial.number:09d}", val, is_whole=bool(val))


def _in_order(settings: Sequence[Sequence[SweepTrial]]) -> list[SweepTrial]:
    every = (trial for trials in settings for trial in trials)
    return sorted(every, key=lambda trial: trial.number)
