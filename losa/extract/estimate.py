"""``losa plan``: what an extraction would cost, before anything is there or has been run."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from losa.config import ExtractConfig
from losa.errors import InputError, UsageError
from losa.extract.advice import LARGE, Option, fitting, policies, smaller, suits, verdict
from losa.extract.clips.asking import asked_clip
from losa.extract.costing import Bill, Counts, Rates, bill
from losa.extract.datasets import Dataset, load_dataset
from losa.extract.known import Profile, Setting, known_size
from losa.extract.profiles import profile_of

if TYPE_CHECKING:
    from losa.extract.probing import Probe

logger = logging.getLogger(__name__)
LISTED = "listed here"
ANY_DECODER: Final = "decord"
"""Which one reads the clips makes no difference to a bill, and none need be installed for it."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The bill of what was asked for, the usual settings beside it, and what to do.

    ``room`` is the budget, else what is free where the store would lie, if that was measured.
    ``better`` are settings that fit it, or of something large the usual ones that keep less.
    """

    config: ExtractConfig
    profile: Profile
    counts: Counts
    asked: Bill
    table: tuple[Option, ...]
    better: tuple[Option, ...]
    room: int | None
    rates: Rates
    probe: Probe | None

    @property
    def verdict(self) -> str:
        """The advice in one sentence."""
        return verdict(self.asked, self.better, self.room)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; what is not known is null."""
        spec = self.profile.spec(setting_of(self.config))
        return {
            "model": self.profile.name,
            "img_size": list(self.profile.img_size),
            "frames": self.profile.frames,
            "parameters": self.profile.parameters,
            "dataset": self.config.dataset,
            "samples": dict(self.counts.samples),
            "samples_from": self.counts.source,
            "views": self.counts.views,
            "test_views": self.counts.test_views,
            "taps": list(spec.taps),
            "tokens": spec.grid.num_tokens,
            "store_dtype": spec.dtype,
            **self.asked.to_json(),
            "policies": [option.to_json(self.counts) for option in self.table],
            "room": self.room,
            "advice": [option.to_json(self.counts) for option in self.better],
            "verdict": self.verdict,
            "probe": None if self.probe is None else self.probe.to_json(),
        }


def estimate(
    config: ExtractConfig, *, budget: int | None = None, is_probed: bool = False
) -> Estimate:
    """Price an extraction; with ``is_probed`` by what this machine does in about ten seconds.

    Raises:
        LosaError: the backbone, the data set or the settings are not what they should be.
    """
    started = time.monotonic()
    clip = asked_clip(config, ANY_DECODER)
    profile = profile_of(config.model, config.img_size, None if clip is None else clip.frames)
    setting = setting_of(config)
    profile.spec(setting)
    counts, dataset = count_samples(config)
    found = None
    if is_probed:
        from losa.extract.probing import probe

        found = probe(config, dataset, counts, started)
    rates = Rates() if found is None else found.rates
    asked = bill(profile, setting, counts, rates)
    room = rates.free_bytes if budget is None else budget
    better = []
    if room is not None and not suits(asked, room):
        better = fitting(profile, setting, counts, rates, room)
    elif room is None and asked.total_bytes > LARGE:
        better = smaller(profile, setting, counts, rates)
    return Estimate(
        config=config,
        profile=profile,
        counts=counts,
        asked=asked,
        table=_table(profile, asked, counts, rates),
        better=tuple(better),
        room=room,
        rates=rates,
        probe=found,
    )


def setting_of(config: ExtractConfig) -> Setting:
    """What a configuration keeps of the features."""
    return Setting(config.taps, config.tokens, config.store_dtype)


def count_samples(config: ExtractConfig) -> tuple[Counts, Dataset | None]:
    """Samples as listed here, else as published for a known data set that is not.

    Raises:
        UsageError: a split was asked for that there is not, or whose size is not known.
        InputError: the data set is not there or damaged, and no size of it is known.
    """
    known, clip = known_size(config.dataset), asked_clip(config, ANY_DECODER)
    test_views = 1 if clip is None else clip.test_views
    try:
        dataset = load_dataset(
            config.dataset,
            config.data_dir,
            splits=config.split,
            seed=config.seed,
            is_clips=clip is not None,
        )
    except InputError as error:
        if known is None:
            raise
        logger.info("%s; its published size counts", error)
    else:
        samples = {name: len(listed) for name, listed in dataset.splits.items()}
        return Counts(samples, LISTED, config.views, test_views), dataset
    wanted = known.splits if config.split is None else config.split
    unknown = [name for name in wanted if name not in known.splits]
    if unknown:
        what = f"how many {unknown[0]!r} samples {config.dataset} has is not known here"
        raise UsageError("--split", what, f"put it there, or use {', '.join(known.splits)}")
    samples = {name: known.splits[name] for name in wanted}
    return Counts(samples, known.source, config.views, test_views), None


def _table(profile: Profile, asked: Bill, counts: Counts, rates: Rates) -> tuple[Option, ...]:
    """The usual settings, each only once."""
    found: dict[object, Option] = {}
    for setting in policies(profile):
        spec = profile.spec(setting)
        priced = bill(profile, setting, counts, rates)
        option = Option(setting, priced, priced.sample_bytes / asked.sample_bytes)
        found.setdefault((spec.taps, spec.grid, spec.dtype), option)
    return tuple(found.values())
