"""Train many trials in one pass over a store: one read, one transfer and one decode of a batch.

Every trial has a folder of its own, which holds what ``losa adapt`` would have written there, and
can be evaluated, resumed alone or resumed in another cohort. Trials need not be at one place: the
one that is furthest behind sets the pace, and the others wait until it has come to where they are.
So a cohort that was killed goes on from the snapshots of its trials, and trials that were stopped
at different epochs go on together.

Source: docs/decisions/0015-cohorts.md.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Final

import torch

from losa.adapt.adaptor import Adaptor
from losa.adapt.cohortloop import CohortLoop, Member, SharedClock
from losa.adapt.cohortstep import CohortStep
from losa.adapt.course import Course
from losa.adapt.crew import Crew
from losa.adapt.objective import objective_of
from losa.adapt.packing import packed, trial_bytes
from losa.adapt.partition import Parts, partition
from losa.adapt.progress import Progress
from losa.adapt.report import AdaptReport
from losa.adapt.resident import batches_on, free_bytes
from losa.adapt.ring import RingOptions
from losa.adapt.rundir import RunDir, default_out, effective
from losa.adapt.source import FeatureSource
from losa.adapt.task import kind_in, targets_digest, with_task
from losa.adapt.train import Feed, card_of, check_patience, new_adaptor, used_spec
from losa.adapt.trial import Trial
from losa.config import AdaptConfig
from losa.device import Compute, resolve_compute
from losa.errors import InputError, UsageError
from losa.interrupt import StopRequest

log = logging.getLogger(__name__)

SHARED_FIELDS: Final = (
    *("store", "live", "targets", "batch_size", "reading_seed", "val_fraction"),
    *("device", "amp_dtype", "read"),
)
"""What trials of a cohort have in common: what is read, in which order, and where it goes."""


@dataclass(frozen=True)
class CohortTrial:
    """A trial of a cohort; ``stop_epoch`` epochs are trained for now, of all that it has.

    The schedule is that of all its epochs. A trial that was stopped goes on when it is asked for
    again with a later ``stop_epoch``, or with none.
    """

    config: AdaptConfig
    stop_epoch: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a trial, and its ``metrics.jsonl``, one entry an epoch.

    ``report`` is there if it was finished, ``reason`` if it was dropped, and neither if it was
    stopped at its epoch.
    """

    config: AdaptConfig
    report: AdaptReport | None
    reason: str | None
    curve: list[dict[str, Any]]


OnOutcome = Callable[[int, Outcome], None]


def can_share(a: AdaptConfig, b: AdaptConfig) -> bool:
    """Whether two trials may be in one cohort: all that they differ in is a trial's own.

    Example:
        >>> one = AdaptConfig(data_seed=0, lr=1e-3)
        >>> can_share(one, AdaptConfig(data_seed=0, lr=1e-2, seed=1, rank=4, epochs=9))
        True
        >>> can_share(one, AdaptConfig(data_seed=1))
        False
    """
    is_stored = a.live is None and b.live is None
    return is_stored and all(getattr(a, name) == getattr(b, name) for name in SHARED_FIELDS)


def adapt_cohort(
    store: FeatureSource,
    trials: Sequence[CohortTrial],
    *,
    progress: Progress | None = None,
    on_outcome: OnOutcome | None = None,
) -> list[Outcome]:
    """Train trials together, each to where it would be alone, to the bit on a CPU.

    A trial whose training diverges, or whose settings do not fit the store, is dropped with its
    reason. ``on_outcome`` is told of each trial as soon as it is known what became of it.

    Raises:
        UsageError: the trials cannot share a pass; see :func:`can_share`.
        InputError: the store's splits or labels cannot be trained on.
        StoreError: the store, or the run in a trial's folder, is damaged.
        MismatchError: a trial's folder holds another run.
        ResourceError: the device is not there, or a run cannot be written.
        LockedError: another process trains in a trial's folder.
    """
    if not trials:
        return []
    first = trials[0].config
    if not all(can_share(first, trial.config) for trial in trials):
        what = f"differ in one of {', '.join(SHARED_FIELDS)}"
        raise UsageError("trials", what, "train them in cohorts of their own")
    store = with_task(store, first.targets)
    compute = resolve_compute(first.device, first.amp_dtype)
    parts = partition(store, val_fraction=first.val_fraction, seed=first.reading_seed)
    devices = [compute.device] if compute.device.type == "cuda" else []
    cohort = _Cohort(store, parts, compute, on_outcome or (lambda _, __: None))
    with ExitStack() as folders, torch.random.fork_rng(devices=devices):
        found = [cohort.begin(number, trial, folders) for number, trial in enumerate(trials)]
        cohort.train([each for each in found if each is not None], progress)
    return [cohort.outcomes[number] for number in range(len(trials))]


@dataclass(frozen=True, eq=False)
class _Begun:
    """A trial whose folder is claimed."""

    number: int
    trial: CohortTrial
    run: RunDir
    adaptor: Adaptor


class _Cohort:
    """What all trials of a cohort have in common, and what became of them so far."""

    def __init__(
        self, store: FeatureSource, parts: Parts, compute: Compute, on_outcome: OnOutcome
    ) -> None:
        self._store = store
        self._parts = parts
        self._compute = compute
        self._on_outcome = on_outcome
        self.outcomes: dict[int, Outcome] = {}

    def begin(self, number: int, trial: CohortTrial, folders: ExitStack) -> _Begun | None:
        """Claim a trial's folder; nothing is returned where its outcome is known already."""
        store, config = self._store, trial.config
        try:
            check_patience(config, self._parts)
            taps = used_spec(store, config).taps
            config = config.model_copy(update={"amp_dtype": self._compute.amp_dtype})
            acting = effective(config, taps, kind_in(store))
            out = config.out or default_out(acting, store.store_id, targets_digest(store))
            config = config.model_copy(update={"out": out})
            card = card_of(store, acting, self._parts.train)
            adaptor = new_adaptor(store, config, card)
        except (UsageError, InputError) as error:
            self._settle(number, Outcome(config, None, str(error), []))
            return None
        run = folders.enter_context(RunDir.claim(config, card))
        report = run.report()
        if report is not None:
            self._settle(number, Outcome(config, report, None, _curve(run)))
            return None
        return _Begun(number, replace(trial, config=config), run, adaptor)

    def train(self, begun: Sequence[_Begun], progress: Progress | None) -> None:
        """Train all that have begun, in as many passes as their memory takes."""
        spec, classes = self._store.spec, len(self._store.classes)
        sizes = [
            trial_bytes(each.trial.config, spec.with_taps(each.run.card.spec.taps), classes).total
            for each in begun
        ]
        # Half: batches, what one trial computes, and others need their share.
        for numbers in packed(sizes, free_bytes(self._compute.device) // 2):
            self._pass([begun[number] for number in numbers], progress)

    def _pass(self, begun: Sequence[_Begun], progress: Progress | None) -> None:
        configs = [each.trial.config for each in begun]
        options = RingOptions(
            configs[0].batch_size,
            self._compute.device,
            max(config.read_threads for config in configs),
            max(config.prefetch for config in configs),
        )
        parts, store = self._parts, self._store
        seen = {tap for each in begun for tap in each.run.card.spec.taps}
        taps = tuple(tap for tap in store.spec.taps if tap in seen)
        every = [part for part in (parts.train, parts.val) if part is not None]
        given = batches_on(store, taps, options, every, configs[0].read)
        with given as ring, Crew(self._compute.device) as crew, StopRequest() as stop:
            feed = Feed(ring, parts, configs[0].reading_seed)
            clock = SharedClock(len(begun))
            members = [self._member(each, feed, clock) for each in begun]
            step = CohortStep(store.spec.with_taps(taps), crew)
            loop = CohortLoop(feed, members, step, clock, self._ended)
            loop.go(stop, progress)

    def _member(self, begun: _Begun, feed: Feed, clock: SharedClock) -> Member:
        config, run = begun.trial.config, begun.run
        aim = objective_of(
            self._store, config, run.card.scale, self._compute.device, self._parts.train
        )
        loader = feed.train()
        trial = Trial(begun.adaptor, config, loader.steps, self._compute, objective=aim)
        course = Course(run, trial, loader.samples, clock)
        return Member(begun.number, course, begun.trial.stop_epoch)

    def _ended(self, member: Member, report: AdaptReport | None, reason: str | None) -> None:
        course = member.course
        if report is not None:
            course.run.finish(report)
        outcome = Outcome(course.trial.config, report, reason, _curve(course.run))
        self._settle(member.number, outcome)

    def _settle(self, number: int, outcome: Outcome) -> None:
        if outcome.reason is not None:
            log.warning("a trial is dropped: %s", outcome.reason)
        self.outcomes[number] = outcome
        self._on_outcome(number, outcome)


def _curve(run: RunDir) -> list[dict[str, Any]]:
    if not run.metrics.exists():
        return []
    return [json.loads(line) for line in run.metrics.read_text(encoding="utf-8").splitlines()]
