"""Trials as settings: repetitions joined, means with standard errors, an order, and fronts.

Val alone decides the order. Test is reported, and chooses nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeGuard

from losa.adapt.choice import UNSET, Repetition, best_of, order_of, setting_key
from losa.report.trials import Trial
from losa.store.files import canonical_json


@dataclass(frozen=True, slots=True)
class Criterion:
    """The metric that val chose by: its key, its words, and what a person reads of it."""

    key: str
    words: str
    factor: float
    unit: str
    digits: int
    is_higher_better: bool = True

    def shown(self, value: float) -> float:
        """The value in the criterion's unit."""
        return self.factor * value

    def brief(self, value: float) -> str:
        """The value where there is little room.

        Example:
            >>> Criterion("top1", "top-1", 100.0, "%", 2).brief(0.956)
            '95.6'
        """
        return f"{self.shown(value):.{self.digits - 1}f}"

    def text(self, value: float, error: float | None = None) -> str:
        """A mean and its standard error in the criterion's unit, which is not said.

        Example:
            >>> Criterion("top1", "top-1", 100.0, "%", 2).text(0.956, 0.002)
            '95.60 ± 0.20'
        """
        mean = f"{self.shown(value):.{self.digits}f}"
        return mean if error is None else f"{mean} ± {self.shown(error):.{self.digits}f}"


CRITERIA: Final = (
    Criterion("top1", "top-1 accuracy", 100.0, "%", 2),
    Criterion("mean_ap", "mean average precision", 100.0, "%", 2),
    Criterion("loss", "loss", 1.0, "", 4, is_higher_better=False),
)
"""Of classes, of several labels and of numbers, as ``losa adapt`` chooses."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over seeds and its standard error; of one seed there is none."""

    value: float
    error: float | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """Trials that differ in the seed alone; ``values`` are of the fields that the sweep varies.

    ``number`` is its place in the order, from 1.
    """

    number: int
    values: Mapping[str, Any]
    trials: tuple[Trial, ...]

    @property
    def whole(self) -> tuple[Trial, ...]:
        """Trials that were not dropped."""
        return tuple(trial for trial in self.trials if trial.reason is None)

    @property
    def name(self) -> str:
        """Its values, as people say them."""
        words = (f"{name.replace('_', ' ')} {shown(value)}" for name, value in self.values.items())
        return ", ".join(words) or "the one setting"

    def score(self, split: str, key: str) -> Mean | None:
        """Mean over seeds of a metric on a split, of the trials that were not dropped.

        Where all were, it is of what they had reached by then.
        """
        found = [trial.metrics.get(split, {}).get(key) for trial in self.whole or self.trials]
        return mean([float(value) for value in found if is_number(value)])

    def cost(self, of: Cost) -> float | None:
        """Mean over seeds of what a trial costs."""
        trials = self.whole or self.trials
        found = mean([float(value) for trial in trials if (value := of.get(trial)) is not None])
        return None if found is None else found.value


@dataclass(frozen=True, slots=True)
class Cost:
    """What a point of a front costs: its words, its unit, and where it stands."""

    words: str
    unit: str
    get: Callable[[Trial], int | float | None]
    key: str


COSTS: Final = (
    Cost("trainable parameters", "", lambda trial: trial.trainable, "trainable"),
    Cost("training time", "s", lambda trial: trial.seconds, "seconds"),
    Cost("peak memory", "B", lambda trial: trial.peak_bytes, "peak_bytes"),
    Cost("store bytes a sample", "B", lambda trial: trial.sample_bytes, "sample_bytes"),
    Cost("inference of one image", "FLOPs", lambda trial: trial.flops, "flops"),
)


def mean(values: Sequence[float]) -> Mean | None:
    """The mean and ``s / sqrt(m)`` with ``s`` over ``m - 1``; ``None`` of nothing.

    Example:
        >>> mean([1.0, 3.0]), mean([1.0]), mean([])
        (Mean(value=2.0, error=1.0), Mean(value=1.0, error=None), None)
    """
    if not values:
        return None
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return Mean(statistics.fmean(values), error)


def criterion_of(trials: Sequence[Trial]) -> Criterion:
    """The metric that all trials are compared by: what the first that has metrics was chosen by."""
    for trial in trials:
        for scores in trial.metrics.values():
            return next((one for one in CRITERIA if one.key in scores), CRITERIA[-1])
    return CRITERIA[0]


def swept_fields(trials: Sequence[Trial]) -> tuple[str, ...]:
    """Fields whose values differ among trials, in the configuration's order, without the seed."""
    seen: dict[str, set[bytes]] = {}
    for trial in trials:
        for name, value in trial.config.items():
            seen.setdefault(name, set()).add(canonical_json({"": value}))
    held = {name: sum(name in trial.config for trial in trials) for name in seen}
    return tuple(
        name
        for name, values in seen.items()
        if name not in UNSET and (len(values) > 1 or held[name] < len(trials))
    )


def settings_of(trials: Sequence[Trial], criterion: Criterion) -> tuple[Setting, ...]:
    """All settings, the best on val first; source: :func:`losa.adapt.choice.order_of`."""
    fields = swept_fields(trials)
    groups: dict[bytes, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(setting_key(trial.config), []).append(trial)
    found = []
    for group in groups.values():
        values = {name: group[0].config.get(name) for name in fields}
        members = sorted(group, key=lambda trial: (trial.seed, trial.name))
        found.append(Setting(0, MappingProxyType(values), tuple(members)))
    found.sort(key=lambda setting: order_of(_repetitions(setting.trials, criterion)))
    return tuple(Setting(at, one.values, one.trials) for at, one in enumerate(found, start=1))


def winner_of(settings: Sequence[Setting], criterion: Criterion) -> Trial | None:
    """The trial of the best setting that was best on val; none where nothing has a val."""
    best = best_of(_repetitions(settings[0].trials, criterion))
    return next((one for one in settings[0].trials if best and one.name == best.name), None)


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points ``(cost, gain)`` that no other beats: cheaper and no worse, or better.

    Example:
        >>> front([(1.0, 0.5), (2.0, 0.4), (3.0, 0.9), (1.0, 0.4)])
        [0, 2]
    """
    kept, best = [], -math.inf
    for place in sorted(range(len(points)), key=lambda at: (points[at][0], -points[at][1])):
        if points[place][1] > best:
            kept.append(place)
            best = points[place][1]
    return kept


def shown(value: object) -> str:
    """A field's value as people write it.

    Example:
        >>> shown(0.003), shown(None), shown(True), shown("3,7")
        ('0.003', 'none', 'yes', '3,7')
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _repetitions(trials: Sequence[Trial], criterion: Criterion) -> list[Repetition]:
    """Trials as a choice sees them: what val is compared by, and nothing of test."""
    found = []
    for trial in trials:
        score, loss = (trial.metrics.get("val", {}).get(key) for key in (criterion.key, "loss"))
        val = {criterion.key: score, "loss": loss if is_number(loss) else math.inf}
        found.append(
            Repetition(
                trial.name,
                val if is_number(score) else {},
                seed=trial.seed,
                is_whole=trial.reason is None,
                epochs=trial.epochs,
                trainable=trial.trainable or 0,
            )
        )
    return found


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a finite number; truth is none.

    Example:
        >>> is_number(0.5), is_number(True), is_number(float("nan")), is_number("1")
        (True, False, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
