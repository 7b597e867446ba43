"""Train one adaptor on a store: read, step, validate, choose, report; and resume exactly.

All randomness is a function of the seed and the position, so a run that was interrupted anywhere
ends with the same bits as one that was not, on the same class of machine.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Final

import torch

from losa.adapt.adaptor import Adaptor
from losa.adapt.checkpoint import AdaptorCard
from losa.adapt.course import Course
from losa.adapt.evaluate import score_part
from losa.adapt.loader import FeatureLoader
from losa.adapt.objective import Metrics, objective_of
from losa.adapt.options import SideOptions
from losa.adapt.partition import Part, Parts, partition
from losa.adapt.progress import Phase, Progress, ProgressEvent
from losa.adapt.registry import build_adaptor
from losa.adapt.report import AdaptReport
from losa.adapt.resident import GivesBatches, batches_on
from losa.adapt.ring import BatchSource, RingOptions
from losa.adapt.rundir import (
    BY_TAP,
    OF_OTHER_TASKS,
    RunDir,
    config_digest,
    default_out,
    effective,
    ignored,
    unheeded,
)
from losa.adapt.source import FeatureSource
from losa.adapt.targets import Kind
from losa.adapt.task import kind_in, targets_digest, task_in, task_scale, with_task
from losa.adapt.trial import Trial
from losa.config import AdaptConfig
from losa.device import resolve_compute
from losa.errors import UsageError
from losa.features import FeatureSpec, resolve_taps
from losa.interrupt import StopRequest
from losa.store.opening import open_source

log = logging.getLogger(__name__)

CHECK_STEPS: Final = 64
"""Steps between two looks at the losses and the memory."""

ONE_TAP: Final = frozenset({"linear", "attentive"})
"""Adaptors that see the last tap alone; the others' bytes are not read for them."""


def adapt(config: AdaptConfig, *, progress: Progress | None = None) -> AdaptReport:
    """Train the adaptor that ``config`` describes, or go on where an interrupted run stopped.

    A finished run of the same configuration is not repeated: its report is returned.

    Raises:
        StoreError: the store, or the run in ``config.out``, is missing or damaged.
        MismatchError: ``config.out`` holds a run of another configuration or store.
        InputError: the store's splits or labels cannot be trained on, or the training diverged.
        UsageError: the taps, the adaptor or the device are unknown.
        ResourceError: the device is not there, or the run cannot be written.
        LockedError: another process is training in ``config.out``.
    """
    return adapt_on(open_source(config.store, regime=config.read), config, progress=progress)


def adapt_on(
    store: FeatureSource,
    config: AdaptConfig,
    *,
    progress: Progress | None = None,
    batches: GivesBatches = batches_on,
) -> AdaptReport:
    """Like :func:`adapt`, on a store that is open already; ``config.store`` is only recorded.

    ``batches`` gives the store's batches where they are not read from a disk.
    """
    store = with_task(store, config.targets)
    compute = resolve_compute(config.device, config.amp_dtype)
    config = config.model_copy(update={"amp_dtype": compute.amp_dtype})
    acting = effective(config, used_spec(store, config).taps, kind_in(store))
    out = config.out or default_out(acting, store.store_id, targets_digest(store))
    config = config.model_copy(update={"out": out})
    parts = partition(store, val_fraction=config.val_fraction, seed=config.reading_seed)
    check_patience(config, parts)
    card = card_of(store, acting, parts.train)
    aim = objective_of(store, config, card.scale, compute.device, parts.train)
    _tell_ignored(config, card.task, has_val="val" in store.splits)
    options = RingOptions(config.batch_size, compute.device, config.read_threads, config.prefetch)
    devices = [compute.device] if compute.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        adaptor = new_adaptor(store, config, card)
        with RunDir.claim(config, card) as run:
            found = run.report()
            if found is not None:
                log.info("%s holds the finished run already", run.path)
                return found
            every = [part for part in (parts.train, parts.val) if part is not None]
            given = batches(store, card.spec.taps, options, every, config.read)
            with given as ring, StopRequest() as stop:
                feed = Feed(ring, parts, config.reading_seed)
                trial = Trial(adaptor, config, feed.train().steps, compute, objective=aim)
                training = Training(Course(run, trial, feed.train().samples), feed)
                training.go(stop, progress)
                report = training.report()
            run.finish(report)
    return report


def check_patience(config: AdaptConfig, parts: Parts) -> None:
    """Make sure that patience has something to watch.

    Raises:
        UsageError: there is no val.
    """
    if parts.val is None and config.patience is not None:
        raise UsageError("--patience", "needs a val to watch", "leave it away, or hold a val out")


def used_spec(store: FeatureSource, config: AdaptConfig) -> FeatureSpec:
    """The store's spec at the taps that the adaptor of ``config`` sees.

    Raises:
        UsageError: the store does not have the taps.
    """
    return store.spec.with_taps(used_taps(config, store.spec.taps))


def used_taps(config: AdaptConfig, have: tuple[int, ...]) -> tuple[int, ...]:
    """The taps that the adaptor of ``config`` sees, of those that there are.

    Raises:
        UsageError: they are not among them.
    """
    taps = resolve_taps(config.taps, have)
    return taps[-1:] if config.adaptor in ONE_TAP else taps


def card_of(store: FeatureSource, config: AdaptConfig, train: Part | None = None) -> AdaptorCard:
    """What a run of ``config`` on ``store`` is, for its ``adaptor.json``.

    Raises:
        InputError: a number that is to be learnt is the same for all rows of ``train``.
    """
    spec, task, digest = used_spec(store, config), task_in(store), targets_digest(store)
    scale = () if train is None else task_scale(task, train.split, train.rows, "--targets")
    calibration = store.calibration(spec.taps)
    found = calibration.quantiser
    quantiser = [] if found is None else found.tolist()
    return AdaptorCard(
        adaptor=config.adaptor,
        options=options_of(config),
        spec=spec,
        classes=store.classes,
        store_id=store.store_id,
        backbone=store.plan.backbone,
        preprocessing=store.plan.preprocessing,
        config_digest=config_digest(config, store.store_id, digest),
        order_seed=store.plan.order_seed,
        numerics=store.plan.numerics.to_json(),
        listings={name: split.listing for name, split in store.plan.splits.items()},
        exponents=calibration.exponent,
        quantiser=tuple(tuple(map(tuple, tap)) for tap in quantiser),
        task=kind_in(store),
        targets=digest,
        scale=scale,
    )


def options_of(config: AdaptConfig) -> SideOptions:
    """The switches of the adaptor of a configuration."""
    return SideOptions(
        rank=config.rank,
        token_rank=config.token_rank,
        order=config.order,
        residual=config.residual,
        start=config.start,
        share_mixers=config.share_mixers,
        init_scale=config.init_scale,
        mixer_norm=config.mixer_norm,
        pool=config.pool,
        dropout=config.dropout,
        width=config.width,
        token_mixing=config.token_mixing,
        token_order=config.token_order,
        time_rank=config.time_rank,
        clip_frames=config.clip_frames,
        clip_stride=config.clip_stride,
    )


def _tell_ignored(config: AdaptConfig, task: Kind, *, has_val: bool) -> None:
    default = AdaptConfig.model_fields
    for names, what in (
        (ignored(config), config.adaptor),
        (OF_OTHER_TASKS[task], task),
        (("val_fraction",) if has_val else (), "a store that has a val split"),
    ):
        usual = {name: (default[name].default, unheeded(name)) for name in names}
        found = [name for name in names if getattr(config, name) not in usual[name]]
        if found:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in found)
            log.warning("%s has no effect on %s", flags, what)


def new_adaptor(store: FeatureSource, config: AdaptConfig, card: AdaptorCard) -> Adaptor:
    """Build the untrained adaptor from the seed, with the store's statistics unless ``raw``.

    ``auto`` is what was found better: one scale a tap for the networks of ``BY_TAP``, each
    channel's own mean and scale for the others. Source: docs/decisions/0017-scale-of-a-tap.md.
    """
    torch.default_generator.manual_seed(config.seed)
    adaptor = build_adaptor(card.adaptor, card.spec, len(card.classes), card.options)
    # As it acts: here ``auto`` is somebody's own configuration, of a test or a notebook.
    kind = config.standardise
    if kind == "auto":
        kind = "tap" if card.adaptor in BY_TAP else "store"
    if kind != "raw":
        calibration = store.calibration(card.spec.taps)
        adaptor.standardise.load(calibration.mean, calibration.std)
    if kind == "tap":
        adaptor.standardise.by_tap()
    return adaptor


@dataclass(frozen=True, slots=True)
class Feed:
    """The parts of a store through one ring."""

    ring: BatchSource
    parts: Parts
    seed: int

    def train(self) -> FeatureLoader:
        """The train rows, shuffled: of each sample one view, another one every epoch."""
        part = self.parts.train
        return FeatureLoader(part.split, part.rows, self.ring, seed=self.seed, shuffle=True)

    def in_order(self, part: Part) -> FeatureLoader:
        """The rows of a part as they lie."""
        return FeatureLoader(part.split, part.rows, self.ring)


class Training:
    """One run from wherever it stands to its report: one trial, and the loop that feeds it."""

    def __init__(self, course: Course, feed: Feed) -> None:
        self._course = course
        self._trial = course.trial
        self._feed = feed
        self._loader = feed.train()
        self._stop = StopRequest()
        self._progress: Progress | None = None

    def go(self, stop: StopRequest, progress: Progress | None = None) -> None:
        """Train from the last snapshot, or from the start, until no epoch is left or patience is.

        A stop that is asked for is granted between two steps, after a snapshot.
        """
        self._stop, self._progress = stop, progress
        self._course.resume()
        while not self._course.is_over:
            self._train_epoch()
            self._end_epoch()

    def report(self) -> AdaptReport:
        """Score the weights that val chose (or the last) on test, once, and sum up the run."""
        self._course.choose()
        part = self._feed.parts.test
        return self._course.report(None if part is None else self._score("test", part))

    def _train_epoch(self) -> None:
        course = self._course
        epoch = course.position.epoch
        mark = time.monotonic()
        for batch in self._loader.epoch(epoch, course.position.step):
            self._trial.step(self._loader.planes(batch), batch.labels, course.position)
            course.stepped(len(batch.rows), time.monotonic() - mark)
            self._between_steps()
            mark = time.monotonic()
        course.check()

    def _between_steps(self) -> None:
        step = self._course.position.step
        if step % CHECK_STEPS == 0:
            self._course.check()
            self._course.usage.sample()
        self._course.save_if_due()
        self._tell("train", step, self._loader.steps)

    def _end_epoch(self) -> None:
        part = self._feed.parts.val
        val = None if part is None else self._score("val", part)
        loss = self._course.end_epoch(val)
        steps = self._loader.steps
        self._tell("val", steps, steps, train_loss=loss, **({} if val is None else val.shown()))

    def _score(self, phase: Phase, part: Part) -> Metrics:
        loader = self._feed.in_order(part)
        sums = self._trial.objective.sums()
        for step in score_part(self._trial.judged, loader, part, self._trial.compute, sums):
            self._tell(phase, step, loader.steps)
        return sums.metrics()

    def _tell(self, phase: Phase, step: int, steps: int, **metrics: float) -> None:
        """Report progress; both it and a signal may ask to stop, and nothing done is lost."""
        # At step 0 the event is about the epoch that has just ended.
        position = self._course.position
        epoch = position.epoch - (position.step == 0)
        event = ProgressEvent(phase, epoch, self._trial.config.epochs, step, steps, metrics)
        if self._stop.is_set:
            self._save_before_leaving(phase)
            self._stop.leave()
        if self._progress is None:
            return
        try:
            self._progress(event)
        except (KeyboardInterrupt, SystemExit):
            self._save_before_leaving(phase)
            raise

    def _save_before_leaving(self, phase: Phase) -> None:
        # While testing, the module holds the best weights, and the last ones are saved.
        if phase != "test":
            self._course.save()
