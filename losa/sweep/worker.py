"""One process of a sweep: it claims a cohort, trains it, publishes the results, and looks again."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch

from losa.adapt.cohort import CohortTrial, Outcome, adapt_cohort, can_share
from losa.adapt.progress import ProgressEvent
from losa.adapt.registry import trainable_parameters
from losa.adapt.rundir import METRICS_NAME, effective
from losa.adapt.source import FeatureSource
from losa.adapt.task import kind_in
from losa.adapt.train import card_of, new_adaptor, used_spec
from losa.errors import LockedError, is_out_of_memory
from losa.interrupt import StopRequest
from losa.store.claims import Claims
from losa.sweep.folder import SweepFolder, claim_of
from losa.sweep.results import best_of_curve, failure_of, result_of
from losa.sweep.schedule import Pending, Schedule
from losa.sweep.trials import SweepTrial

log = logging.getLogger(__name__)

TOGETHER: Final = 32
"""Trials of one cohort at most: each has weights, moments and hiddens of its own in memory."""

FIRST_WAIT: Final = 0.02
LONGEST_WAIT: Final = 1.0
"""Seconds between two looks at what others, who hold all that is left, have done."""

Tell = Callable[[float, int], None]
"""Told of how many trials are done, of so many; a cohort counts for the share it has trained."""


@dataclass(frozen=True, slots=True)
class Member:
    """Which of how many processes of one machine this is."""

    number: int = 0
    count: int = 1


@dataclass(frozen=True, slots=True)
class _Round:
    """Trials that were claimed together, and how many had a result before.

    ``ended`` are the numbers of those that have left since, and whether with a result: one that
    has only come to its rung has none.
    """

    taken: Sequence[Pending]
    before: int
    ended: dict[int, bool] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Trials of the sweep that have a result."""
        return self.before + sum(self.ended.values())


class Worker:
    """A process that trains trials of a sweep until none is left."""

    def __init__(
        self,
        folder: SweepFolder,
        schedule: Schedule,
        store: FeatureSource,
        *,
        member: Member,
        tell: Tell | None = None,
    ) -> None:
        self._folder = folder
        self._schedule = schedule
        self._store = store
        self._member = member
        self._tell = tell or (lambda _, __: None)
        self._claims: Claims = folder.claims()
        # How often a trial's folder was found to be held by whom nobody expected there.
        self._held: dict[str, int] = {}

    def run(self) -> None:
        """Train until every trial of the sweep has a result, whoever trains it.

        Raises:
            KeyboardInterrupt: Ctrl-C; what was in flight is kept.
            SystemExit: it was told to end; with code 75, and what was in flight is kept.
        """
        wait = FIRST_WAIT
        with StopRequest() as stop:
            try:
                while pending := self._schedule.pending():
                    self._tell(float(self._done()), self._schedule.total)
                    taken = self._take(pending)
                    is_trained = bool(taken) and self._train(taken)
                    wait = FIRST_WAIT if is_trained else min(2 * wait, LONGEST_WAIT)
                    if stop.is_set:
                        stop.leave()
                    if not is_trained:
                        time.sleep(wait)
            finally:
                self._claims.close()
        self._tell(float(self._done()), self._schedule.total)

    def _done(self) -> int:
        trials = self._schedule.trials()
        return sum(self._folder.result(trial.digest) is not None for trial in trials)

    def _take(self, pending: Sequence[Pending]) -> list[Pending]:
        """Claim what one cohort holds of what is free, and no more than this process's share."""
        # Not all begin at the same place, or they would be in each other's way at every one.
        first = self._member.number * len(pending) // self._member.count
        share = -(-len(pending) // self._member.count)
        cohort = self._free_mates([*pending[first:], *pending[:first]], min(share, TOGETHER))
        taken = [one for one in cohort if self._claims.take(claim_of(one.trial))]
        # Between the look and the claim somebody may have finished one.
        still = {(one.trial.number, one.stop_epoch) for one in self._schedule.pending()}
        for one in taken:
            if (one.trial.number, one.stop_epoch) not in still:
                self._claims.release(claim_of(one.trial))
        return [one for one in taken if (one.trial.number, one.stop_epoch) in still]

    def _free_mates(self, pending: Sequence[Pending], most: int) -> list[Pending]:
        """So many at most that nobody trains and that may share a pass, in their order.

        One whose folder was found to be held comes last and alone: it must hold up no other.
        """
        found: list[Pending] = []
        for one in sorted(pending, key=lambda one: self._held.get(one.trial.digest, 0)):
            is_held = one.trial.digest in self._held
            if len(found) == most or (is_held and found):
                break
            is_mate = not found or can_share(one.trial.config, found[0].trial.config)
            if is_mate and self._claims.is_free(claim_of(one.trial)):
                found.append(one)
                if is_held:
                    break
        return found

    def _train(self, taken: Sequence[Pending]) -> bool:
        """Train a cohort; says whether that was possible."""
        try:
            self._train_halves(_Round(taken, self._done()), list(range(len(taken))))
            for one in taken:
                # Whoever held it has let go: at a later rung it is a mate like any other.
                self._held.pop(one.trial.digest, None)
        except LockedError as error:
            # Whoever was taken for dead only slept: it goes on, or leaves the folder to us.
            log.warning("%s; the sweep goes on without it for now", error)
            for one in taken:
                if str(one.trial.config.out) == error.subject or len(taken) == 1:
                    self._held[one.trial.digest] = self._held.get(one.trial.digest, 0) + 1
            return False
        finally:
            # Not before: the cohort holds the folders of all its trials until it ends.
            for one in taken:
                self._claims.release(claim_of(one.trial))
        return True

    def _train_halves(self, all_of: _Round, numbers: list[int]) -> None:
        """Train some of a cohort, in halves where memory lacks; what lacks it alone has failed."""
        lacking = self._train_together(all_of, numbers)
        left = [number for number in numbers if number not in all_of.ended]
        if lacking is None or not left:
            return
        if len(numbers) > 1:
            log.warning("%d trials at once have no room (%s): in halves", len(numbers), lacking)
            half = -(-len(left) // 2)
            self._train_halves(all_of, left[:half])
            if left[half:]:
                self._train_halves(all_of, left[half:])
            return
        one = all_of.taken[left[0]]
        log.warning("trial %s is dropped: %s", one.trial.digest, lacking)
        metrics = self._folder.trials / one.trial.digest / METRICS_NAME
        epochs = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
        self._folder.finish(failure_of(one.trial, self._store.store_id, lacking, epochs))
        all_of.ended[left[0]] = True

    def _train_together(self, all_of: _Round, numbers: Sequence[int]) -> str | None:
        """Train some of a cohort in one pass; says what was lacking if it was memory."""
        total = self._schedule.total

        def record(place: int, outcome: Outcome) -> None:
            self._record(all_of.taken[numbers[place]], outcome)
            all_of.ended[numbers[place]] = bool(outcome.report or outcome.reason)
            self._tell(float(all_of.count), total)

        def progress(event: ProgressEvent) -> None:
            share = (event.epoch + event.step / max(1, event.steps)) / event.epochs
            if event.phase == "train":
                running = sum(number not in all_of.ended for number in numbers)
                self._tell(all_of.count + share * running, total)

        taken = [all_of.taken[number] for number in numbers]
        trials = [CohortTrial(one.trial.config, one.stop_epoch) for one in taken]
        try:
            adapt_cohort(self._store, trials, progress=progress, on_outcome=record)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            lacking = f"out of memory ({' '.join(str(error).split())[:120]})"
        else:
            return None
        # Only now: until the exception was let go, its frames held what they had allocated.
        gc.collect()
        torch.cuda.empty_cache()
        return lacking

    def _record(self, pending: Pending, outcome: Outcome) -> None:
        """Publish what became of a trial."""
        trial, store_id = pending.trial, self._store.store_id
        if outcome.reason is not None:
            epochs = len(outcome.curve)
            self._folder.finish(failure_of(trial, store_id, outcome.reason, epochs))
        elif outcome.report is not None:
            self._folder.finish(result_of(trial, store_id, outcome.report))
        else:
            assert pending.stop_epoch is not None
            mark = {
                "epochs": len(outcome.curve),
                "val": dict(best_of_curve(outcome.curve)),
                "parameters": {"trainable": parameters_of(self._store, trial)},
            }
            self._folder.set_mark(trial.digest, pending.stop_epoch, mark)


def parameters_of(store: FeatureSource, trial: SweepTrial) -> int:
    """How many numbers a trial learns."""
    acting = effective(trial.config, used_spec(store, trial.config).taps, kind_in(store))
    with torch.random.fork_rng(devices=[]):
        adaptor = new_adaptor(store, acting, card_of(store, acting))
    return trainable_parameters(adaptor)
