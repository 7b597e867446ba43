"""What a sweep tries: the sections of its YAML file, read with all mistakes told at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import TypeAdapter, ValidationError

from losa.config import Seed
from losa.sweep.fields import check_fields, check_value
from losa.sweep.grid import Grid, parse_grid
from losa.sweep.mistakes import Mistakes, place, shown
from losa.sweep.space import Space, parse_space

SECTIONS: Final = ("base", "seeds", "grid", "list", "random", "halving", "optuna")
WAYS: Final = ("grid", "list", "random", "optuna")
"""Sections that give trials; a sweep has at least one."""

MAX_SAMPLES: Final = 1_000_000
_COUNT: Final[TypeAdapter[int]] = TypeAdapter(int)
_SEED: Final[TypeAdapter[int]] = TypeAdapter(Seed)


@dataclass(frozen=True, slots=True)
class Random:
    """So many settings drawn from a space."""

    samples: int
    seed: int
    space: Space

    def settings(self) -> Iterator[dict[str, Any]]:
        """All of them; the n-th is the same whatever the number of samples."""
        for number in range(self.samples):
            yield self.space.draw(np.random.default_rng((self.seed, number)))


@dataclass(frozen=True, slots=True)
class Halving:
    """Where trials are compared, in epochs, and of how many one goes on."""

    rungs: tuple[int, ...]
    eta: int = 3


@dataclass(frozen=True, slots=True)
class Asked:
    """So many settings that Optuna is asked for, at most ``together`` before it is told of one."""

    trials: int
    seed: int
    together: int
    space: Space


@dataclass(frozen=True)
class Strategy:
    """What all trials have, and the ways by which each gets the rest."""

    base: Mapping[str, Any]
    seeds: tuple[int, ...] = ()
    grid: Grid | None = None
    listed: tuple[Mapping[str, Any], ...] = ()
    random: Random | None = None
    halving: Halving | None = None
    optuna: Asked | None = None

    def count(self) -> int:
        """How many trials there are at most; equal ones are found later."""
        settings = len(self.listed) + (0 if self.grid is None else self.grid.count())
        settings += 0 if self.random is None else self.random.samples
        settings *= max(1, len(self.seeds))
        return settings + (0 if self.optuna is None else self.optuna.trials)

    def settings(self) -> Iterator[dict[str, Any]]:
        """What each trial sets beside the base; those of Optuna are not known yet."""
        for setting in self._without_seeds():
            if self.seeds and "seed" not in setting:
                yield from ({**setting, "seed": seed} for seed in self.seeds)
            else:
                yield setting

    def _without_seeds(self) -> Iterator[dict[str, Any]]:
        if self.grid is not None:
            yield from self.grid.settings()
        yield from (dict(setting) for setting in self.listed)
        if self.random is not None:
            yield from self.random.settings()


def parse_strategy(sections: Mapping[str, Any], file: Path) -> Strategy:
    """The sections of a sweep's file, which is named in errors.

    Raises:
        InputError: there are mistakes; all of them are named.
    """
    mistakes = Mistakes(file)
    for name in sections:
        if name not in SECTIONS:
            mistakes.unknown(place("", name), name, SECTIONS)
    given = {name: sections[name] for name in SECTIONS if sections.get(name) is not None}
    if not any(name in given for name in WAYS):
        mistakes.add("the file", f"gives no trials: write {', '.join(WAYS[:-1])} or {WAYS[-1]}")
    if "optuna" in given:
        for name in ("grid", "list", "random", "halving", "seeds"):
            if name in given:
                mistakes.add(name, "does not go with optuna, which chooses by itself")
    found = Strategy(
        base=check_fields(given.get("base", {}), "base", mistakes, is_base=True),
        seeds=_seeds(given["seeds"], mistakes) if "seeds" in given else (),
        grid=parse_grid(given["grid"], "grid", mistakes) if "grid" in given else None,
        listed=_listed(given["list"], mistakes) if "list" in given else (),
        random=_random(given["random"], mistakes) if "random" in given else None,
        halving=_halving(given["halving"], mistakes) if "halving" in given else None,
        optuna=_asked(given["optuna"], mistakes) if "optuna" in given else None,
    )
    mistakes.tell()
    return found


def _seeds(value: object, mistakes: Mistakes) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        mistakes.add("seeds", f"is not a list of numbers, but {shown(value)}")
        return ()
    found = tuple(
        check_value("seed", item, f"seeds[{i}]", mistakes) for i, item in enumerate(value)
    )
    for number, item in enumerate(found):
        if item is not None and item in found[:number]:
            mistakes.add(f"seeds[{number}]", f"repeats {item}")
    return tuple(item for item in found if item is not None)


def _listed(value: object, mistakes: Mistakes) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list) or not value:
        mistakes.add("list", f"is not a list of settings, but {shown(value)}")
        return ()
    return tuple(check_fields(item, f"list[{i}]", mistakes) for i, item in enumerate(value))


def _random(value: object, mistakes: Mistakes) -> Random:
    known = {"samples": None, "seed": 0, "space": None}
    found = _section(value, "random", known, mistakes)
    space = _space(found["space"], "random.space", mistakes)
    samples = _whole(found["samples"], "random.samples", mistakes, high=MAX_SAMPLES)
    return Random(samples, _seed(found["seed"], "random.seed", mistakes), space)


def _asked(value: object, mistakes: Mistakes) -> Asked:
    known = {"trials": None, "seed": 0, "together": 8, "space": None}
    found = _section(value, "optuna", known, mistakes)
    space = _space(found["space"], "optuna.space", mistakes)
    trials = _whole(found["trials"], "optuna.trials", mistakes, high=MAX_SAMPLES)
    seed = _seed(found["seed"], "optuna.seed", mistakes)
    together = _whole(found["together"], "optuna.together", mistakes, high=1024)
    return Asked(trials, seed, together, space)


def _halving(value: object, mistakes: Mistakes) -> Halving:
    found = _section(value, "halving", {"rungs": None, "eta": 3}, mistakes)
    rungs = [] if found["rungs"] is None else found["rungs"]
    if found["rungs"] is not None and (not isinstance(rungs, list) or not rungs):
        mistakes.add("halving.rungs", f"is not a list of epochs, but {shown(rungs)}")
        rungs = []
    numbers = tuple(
        _whole(item, f"halving.rungs[{i}]", mistakes, high=10**9) for i, item in enumerate(rungs)
    )
    if list(numbers) != sorted(set(numbers)):
        mistakes.add("halving.rungs", f"does not rise: {shown(list(numbers))}")
    return Halving(numbers, _whole(found["eta"], "halving.eta", mistakes, low=2, high=1000))


def _space(value: object, where: str, mistakes: Mistakes) -> Space:
    # Its absence was told.
    return Space({}) if value is None else parse_space(value, where, mistakes)


def _section(
    value: object, where: str, known: Mapping[str, Any], mistakes: Mistakes
) -> dict[str, Any]:
    """What a section gives over what it need not give; ``None``: it must."""
    if not isinstance(value, dict):
        mistakes.add(where, f"is not a mapping of names to values, but {shown(value)}")
        return dict(known)
    for key in value:
        if key not in known:
            mistakes.unknown(place(where, str(key)), str(key), known.keys())
    found = {**known, **{name: value[name] for name in known if value.get(name) is not None}}
    for name in known:
        if found[name] is None:
            mistakes.add(place(where, name), "is needed")
    return found


def _whole(value: object, at: str, mistakes: Mistakes, *, high: int, low: int = 1) -> int:
    if value is None:
        return low  # its absence was told
    try:
        number = _COUNT.validate_python(value, strict=True)
    except ValidationError:
        mistakes.add(at, f"is no whole number, but {shown(value)}")
        return low
    if not low <= number <= high:
        mistakes.add(at, f"is {shown(number)}, not {low:,} to {high:,}")
        return low
    return number


def _seed(value: object, at: str, mistakes: Mistakes) -> int:
    try:
        return _SEED.validate_python(value)
    except ValidationError:
        mistakes.add(at, f"is no seed, but {shown(value)}")
        return 0
