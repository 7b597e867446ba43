"""The loop of a cohort: epochs for all trials that are there, and an end for each in its own time.

A trial leaves when its epochs or its patience are over, when it has come to the epoch where it was
to stop, or when it diverges. Those that end at one epoch are scored on test in one pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from losa.adapt.cohortstep import CohortStep
from losa.adapt.course import Course
from losa.adapt.objective import Metrics
from losa.adapt.partition import Part
from losa.adapt.progress import Phase, Progress, ProgressEvent
from losa.adapt.report import AdaptReport
from losa.adapt.train import CHECK_STEPS, Feed
from losa.adapt.trial import Position
from losa.errors import InputError
from losa.interrupt import StopRequest


@dataclass(frozen=True, eq=False)
class Member:
    """A trial in a cohort, by its number; ``stop_epoch`` is where it stops for now."""

    number: int
    course: Course
    stop_epoch: int | None = None

    @property
    def is_at_stop(self) -> bool:
        """Whether it has come to where it stops for now."""
        return self.stop_epoch is not None and self.course.position.epoch >= self.stop_epoch


Ended = Callable[[Member, AdaptReport | None, str | None], None]
"""Told of a trial that has left: its report, or the reason it was dropped, or neither."""


class SharedClock:
    """Seconds, shared out evenly among the trials that run: what a trial of a cohort costs.

    Example:
        >>> clock = SharedClock(2)
        >>> clock() <= time.monotonic()
        True
    """

    def __init__(self, trials: int) -> None:
        self._trials = trials
        self._seconds = 0.0
        self._since = time.monotonic()

    def __call__(self) -> float:
        """A trial's seconds so far."""
        return self._seconds + (time.monotonic() - self._since) / max(self._trials, 1)

    def share_among(self, trials: int) -> None:
        """From now on there are so many."""
        self._seconds, self._since = self(), time.monotonic()
        self._trials = trials


class CohortLoop:
    """Feeds the members of a cohort until each has ended.

    Args:
        feed: the parts of the store, at the taps of all members.
        members: in any order, wherever they stand.
        step: what takes their steps.
        clock: of all their courses.
        ended: told of each that leaves.
    """

    def __init__(
        self,
        feed: Feed,
        members: Sequence[Member],
        step: CohortStep,
        clock: SharedClock,
        ended: Ended,
    ) -> None:
        self._feed = feed
        self._loader = feed.train()
        self._running = list(members)
        self._step = step
        self._clock = clock
        self._ended = ended
        self._stop = StopRequest()
        self._progress: Progress | None = None
        self._position = Position()
        self._epochs = max(member.course.trial.config.epochs for member in members)

    def go(self, stop: StopRequest, progress: Progress | None = None) -> None:
        """Train all from where they stand; a stop is granted between two steps, and saves all."""
        self._stop, self._progress = stop, progress
        for member in self._running:
            member.course.resume()
        self._settle()
        while self._running:
            self._train_epoch()
            self._end_epoch()
            self._settle()

    def _train_epoch(self) -> None:
        # The one that is furthest behind sets the pace.
        behind = min(self._running, key=lambda member: _order(member.course.position))
        self._position = behind.course.position
        epoch = self._position.epoch
        mark = time.monotonic()
        for batch in self._loader.epoch(epoch, self._position.step):
            present = self._present()
            if not present:
                break
            trials = [member.course.trial for member in present]
            self._step.learn(trials, self._loader.planes(batch), batch.labels, self._position)
            seconds = (time.monotonic() - mark) / len(present)
            for member in present:
                member.course.stepped(len(batch.rows), seconds)
            self._position = Position(epoch, self._position.step + 1)
            self._between_steps(present)
            mark = time.monotonic()
        self._guarded(self._present(), Course.check)

    def _between_steps(self, present: Sequence[Member]) -> None:
        if self._position.step % CHECK_STEPS == 0:
            self._guarded(present, Course.check)
            for member in present:
                member.course.usage.sample()
        self._guarded([one for one in present if one in self._running], Course.save_if_due)
        self._tell("train", self._position.step)

    def _end_epoch(self) -> None:
        present = self._present()
        part = self._feed.parts.val
        scores: list[Metrics | None] = [None] * len(present)
        if part is not None and present:
            scores = [*self._score("val", present, part)]
        for member, val in zip(present, scores, strict=True):
            self._guarded([member], partial(Course.end_epoch, val=val))
        self._tell("val", self._loader.steps, is_over=True)

    def _settle(self) -> None:
        """Let go of those that are over, and of those that stop here."""
        over = [member for member in self._running if member.course.is_over]
        for member in over:
            member.course.choose()
        part = self._feed.parts.test
        scores: list[Metrics | None] = [None] * len(over)
        if part is not None and over:
            scores = [*self._score("test", over, part)]
        for member, test in zip(over, scores, strict=True):
            self._let_go(member, member.course.report(test), None)
        for member in [member for member in self._running if member.is_at_stop]:
            self._let_go(member, None, None)

    def _present(self) -> list[Member]:
        """Those that stand where the loop does; the others wait."""
        return [member for member in self._running if member.course.position == self._position]

    def _guarded(self, members: Sequence[Member], work: Callable[[Course], object]) -> None:
        """Do something that fails where a training has diverged, and drop those."""
        for member in members:
            try:
                work(member.course)
            except InputError as error:
                self._let_go(member, None, str(error))

    def _let_go(self, member: Member, report: AdaptReport | None, reason: str | None) -> None:
        self._running.remove(member)
        self._clock.share_among(len(self._running))
        self._ended(member, report, reason)

    def _score(self, phase: Phase, members: Sequence[Member], part: Part) -> list[Metrics]:
        trials = [member.course.trial for member in members]
        sums = [trial.objective.sums() for trial in trials]
        for trial, each in zip(trials, sums, strict=True):
            trial.judged.eval()
            each.add_skipped(torch.from_numpy(part.skipped_labels))
        loader = self._feed.in_order(part)
        for step, batch in enumerate(loader.epoch(0)):
            logits = self._step.logits(trials, loader.planes(batch))
            for each, found in zip(sums, logits, strict=True):
                each.add(found, batch.labels)
            self._tell(phase, step + 1, steps=loader.steps)
        return [each.metrics() for each in sums]

    def _tell(
        self, phase: Phase, step: int, *, steps: int | None = None, is_over: bool = False
    ) -> None:
        """Report progress; both it and a signal may ask to stop, and nothing done is lost."""
        if self._stop.is_set:
            self._save_before_leaving(phase)
            self._stop.leave()
        if self._progress is None:
            return
        metrics = {"trials": float(len(self._running))} if is_over else {}
        event = ProgressEvent(
            *(phase, self._position.epoch, self._epochs),
            *(step, self._loader.steps if steps is None else steps, metrics),
        )
        try:
            self._progress(event)
        except (KeyboardInterrupt, SystemExit):
            self._save_before_leaving(phase)
            raise

    def _save_before_leaving(self, phase: Phase) -> None:
        # While testing, some modules hold their best weights, and all last ones are saved.
        if phase != "test":
            self._guarded(list(self._running), Course.save)


def _order(position: Position) -> tuple[int, int]:
    return position.epoch, position.step
