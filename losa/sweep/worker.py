"""One process of a sweep: it claims a cohort, trains it, publishes the results, and looks again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from losa.adapt.cohort import CohortTrial, Outcome, adapt_cohort, can_share
from losa.adapt.progress import ProgressEvent
from losa.adapt.registry import trainable_parameters
from losa.adapt.rundir import effective
from losa.adapt.source import FeatureSource
from losa.adapt.train import card_of, new_adaptor, used_spec
from losa.errors import LockedError
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
        turned = [*pending[first:], *pending[:first]]
        free = [one for one in turned if self._claims.is_free(claim_of(one.trial))]
        if not free:
            return []
        mates = [one for one in free if can_share(one.trial.config, free[0].trial.config)]
        share = -(-len(pending) // self._member.count)
        cohort = mates[: min(share, TOGETHER)]
        taken = [one for one in cohort if self._claims.take(claim_of(one.trial))]
        # Between the look and the claim somebody may have finished one.
        still = self._schedule.pending()
        for one in taken:
            if one not in still:
                self._claims.release(claim_of(one.trial))
        return [one for one in taken if one in still]

    def _train(self, taken: Sequence[Pending]) -> bool:
        """Train a cohort; says whether that was possible."""
        done = self._done()
        ended = set[int]()

        def record(number: int, outcome: Outcome) -> None:
            self._record(taken[number], outcome)
            ended.add(number)
            self._tell(float(done + len(ended)), self._schedule.total)

        def progress(event: ProgressEvent) -> None:
            share = (event.epoch + event.step / max(1, event.steps)) / event.epochs
            if event.phase == "train":
                running = len(taken) - len(ended)
                self._tell(done + len(ended) + share * running, self._schedule.total)

        try:
            trials = [CohortTrial(one.trial.config, one.stop_epoch) for one in taken]
            adapt_cohort(self._store, trials, progress=progress, on_outcome=record)
        except LockedError as error:
            # Whoever was taken for dead only slept: it goes on, or leaves the folder to us.
            log.warning("%s; the sweep goes on without it for now", error)
            return False
        finally:
            # Not before: the cohort holds the folders of all its trials until it ends.
            for one in taken:
                self._claims.release(claim_of(one.trial))
        return True

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
    acting = effective(trial.config, used_spec(store, trial.config).taps)
    with torch.random.fork_rng(devices=[]):
        adaptor = new_adaptor(store, acting, card_of(store, acting))
    return trainable_parameters(adaptor)
