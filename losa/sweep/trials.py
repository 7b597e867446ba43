"""From what a sweep tries to its trials on one store: checked, without duplicates, each named."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from losa.adapt.clipwindow import window_of
from losa.adapt.registry import ADAPTORS
from losa.adapt.rundir import config_digest, effective, ignored, unheeded
from losa.adapt.source import FeatureSource
from losa.adapt.task import kind_in, targets_digest, with_task
from losa.adapt.train import options_of, used_spec
from losa.config import AdaptConfig
from losa.device import resolve_compute
from losa.errors import InputError, UsageError
from losa.features import TokenGrid
from losa.sweep.mistakes import Mistakes
from losa.sweep.strategy import Strategy

log = logging.getLogger(__name__)

DIGEST_DIGITS: Final = 16
MANY: Final = 10_000
"""More trials than so many are trained only when somebody says that they are meant."""

TOO_MANY: Final = 1_000_000


@dataclass(frozen=True)
class SweepTrial:
    """One setting of a sweep: what it sets beside the base, and the run it is."""

    number: int
    digest: str
    setting: Mapping[str, Any]
    config: AdaptConfig


def check_count(strategy: Strategy, file: Path, *, is_meant: bool = False) -> None:
    """Refuse a sweep of very many trials before one of them is made.

    Raises:
        UsageError: there are more than 10,000, and nobody said that they are meant.
        InputError: there are more than a sweep can have.
    """
    count = strategy.count()
    if count > TOO_MANY:
        what = f"asks for {count:,} trials; a sweep has at most {TOO_MANY:,}"
        raise InputError(file, what, "give fewer values, or random with so many samples")
    if count > MANY and not is_meant:
        raise UsageError(file, f"asks for {count:,} trials", "give --yes if they are meant")


class TrialMaker:
    """Settings to trials on a store, whose run folders lie below one folder."""

    def __init__(self, store: FeatureSource, base: AdaptConfig, folder: Path) -> None:
        self.store = with_task(store, base.targets)
        self.base = base
        self._folder = folder
        self.targets_digest = targets_digest(self.store)

    def all_of(self, settings: Iterable[Mapping[str, Any]], file: Path) -> list[SweepTrial]:
        """The trials of some settings, of equal ones the first; each number is its place.

        Raises:
            InputError: a setting cannot be trained on the store; all mistakes are named.
        """
        mistakes, told = Mistakes(file), set[str]()
        found: dict[str, SweepTrial] = {}
        total = 0
        for setting in settings:
            total += 1
            try:
                trial = self.make(len(found), setting)
            except UsageError as error:
                if str(error) not in told:
                    mistakes.add(str(error), f"(in {dict(setting)})")
                told.add(str(error))
                continue
            found.setdefault(trial.digest, trial)
        mistakes.tell()
        if len(found) < total:
            log.info("%d settings are equal to others and left out", total - len(found))
        return list(found.values())

    def make(self, number: int, setting: Mapping[str, Any]) -> SweepTrial:
        """One trial.

        Raises:
            UsageError: its adaptor, its taps, its lack of a val, or what it mixes of a clip cannot
                be meant.
        """
        config = self.base.model_copy(update=dict(setting))
        if config.adaptor not in ADAPTORS:
            raise UsageError("adaptor", f"{config.adaptor!r} is unknown", f"{', '.join(ADAPTORS)}")
        if not config.val_fraction:
            raise UsageError("val_fraction", "0 leaves no val to choose on", "give a share")
        # What has no effect is as by default: equal trials are found, and no warning is due.
        defaults = {name: unheeded(name) for name in ignored(config)}
        config = config.model_copy(update=defaults)
        _check_axes(config, self.store.spec.grid)
        acting = effective(config, used_spec(self.store, config).taps, kind_in(self.store))
        digest = config_digest(acting, self.store.store_id, self.targets_digest)[:DIGEST_DIGITS]
        out = self._folder / digest
        return SweepTrial(number, digest, dict(setting), config.model_copy(update={"out": out}))


def _check_axes(config: AdaptConfig, grid: TokenGrid) -> None:
    options = options_of(config)
    window = window_of(grid, options)
    if config.adaptor == "losa":
        options.mixing_on(grid if window is None else window.grid)


def base_config(strategy: Strategy, store: Path) -> AdaptConfig:
    """What all trials have: the base over the defaults, autocast as it is on this machine.

    Raises:
        UsageError: the device is unknown.
        ResourceError: this machine has no such device.
    """
    config = AdaptConfig(**{"data_seed": 0, **strategy.base, "store": store})
    compute = resolve_compute(config.device, config.amp_dtype)
    return config.model_copy(update={"amp_dtype": compute.amp_dtype})
