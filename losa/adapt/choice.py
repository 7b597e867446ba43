"""Which setting is best, by val alone and over its seeds: one order, for sweeps and for reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final

from losa.adapt.rundir import INDIFFERENT
from losa.store.files import canonical_json

UNSET: Final = INDIFFERENT | {"seed"}
"""Fields of a configuration that do not make it another setting."""

Standing = tuple[float, float]
"""How good a trial is on val: what val chooses by, then the negative loss. More is better."""

Order = tuple[int, int, int, float, float, int, str]
"""What settings are sorted by, the best first."""


@dataclass(frozen=True, slots=True)
class Repetition:
    """A trial of a setting, as far as a choice goes; ``val`` is empty where nothing is known.

    ``is_whole`` says that it was trained to its end, ``epochs`` how far it came.
    """

    name: str
    val: Mapping[str, Any]
    seed: int = 0
    is_whole: bool = True
    epochs: int = 0
    trainable: int = 0


def standing(values: Mapping[str, Any]) -> Standing:
    """How good metrics of val are.

    What chooses is top-1 of classes, the mean average precision of labels, the loss of numbers.

    Example:
        >>> standing({"top1": 0.5, "loss": 1.25}), standing({"r2": 0.9, "loss": 0.5})
        ((0.5, -1.25), (-0.5, -0.5))
    """
    loss = -float(values["loss"])
    score = next((values[name] for name in ("top1", "mean_ap") if name in values), loss)
    return float(score), loss


def setting_key(config: Mapping[str, Any]) -> bytes:
    """What trials of one setting have in common: all but the seed and what decides no result.

    Example:
        >>> setting_key({"rank": 8, "seed": 1, "out": "b"}) == setting_key({"rank": 8, "seed": 0})
        True
    """
    return canonical_json({name: value for name, value in config.items() if name not in UNSET})


def order_of(trials: Sequence[Repetition]) -> Order:
    """Where a setting stands; of two, the smaller is the better.

    Settings with a trial that was trained to its end come before those without, and these before
    settings without any val. One that lost trials is behind all that lost fewer: the mean of the
    survivors would flatter it. Then the mean over seeds of what val chooses by decides, the mean
    loss, the trainable parameters, and for want of anything better the names. Settings without a
    whole trial have come to different epochs, and who came further stands before.
    """
    known = [one for one in trials if one.val]
    whole = [one for one in known if one.is_whole]
    name = min(one.name for one in trials)
    if not known:
        return (2, 0, 0, 0.0, 0.0, 0, name)
    score, loss = (
        fmean(values) for values in zip(*(standing(one.val) for one in whole or known), strict=True)
    )
    lost = len(trials) - len(whole or known)
    ahead = 0 if whole else max(one.epochs for one in known)
    return (int(not whole), -ahead, lost, -score, -loss, known[0].trainable, name)


def best_of(trials: Sequence[Repetition]) -> Repetition | None:
    """The whole trial that val likes most, of equals that of the smaller seed; perhaps none."""
    whole = [one for one in trials if one.is_whole and one.val]
    if not whole:
        return None
    return min(whole, key=lambda one: (*(-it for it in standing(one.val)), one.seed, one.name))
