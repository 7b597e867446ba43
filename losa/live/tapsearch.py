"""Which taps to keep: probes on blocks and sets of blocks, and the best set there is room for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

from jaxtyping import Bool, Float, Int
from torch import Tensor

from losa.features import resolve_taps
from losa.live.ridge import Probe, probe

TOLERANCE: Final = 0.005
"""Top-1 that may be lost for fewer bytes; or one standard error of that loss, if larger."""

GREEDY_TAPS: Final = 8
"""Taps of the largest set that is grown tap by tap."""

_ROUNDING: Final = 1e-12
_NAMED: Final = ("auto", "last", "last:2", "last:4", "every:2", "every:3", "every:4", "every:6")


@dataclass(frozen=True)
class TapSet:
    """Taps, what they are called on a command line, and the answers of their probe."""

    name: str
    taps: tuple[int, ...]
    probe: Probe

    @property
    def top1(self) -> float:
        """Share of right answers of samples that the probe has not seen."""
        return self.probe.top1


@dataclass(frozen=True)
class Task:
    """Kernels of all taps, the labels of their rows, and how many of them train."""

    kernels: Float[Tensor, "k n n"]
    labels: Int[Tensor, "n"]
    trained: int

    def probe(self, taps: Sequence[int], penalty: float | None = None) -> Probe:
        """The probe on some taps, perhaps at a penalty that is known."""
        gram = self.kernels[taps[0]].clone()
        for tap in taps[1:]:  # not by a mean over all of them, which would copy the kernels
            gram += self.kernels[tap]
        gram /= len(taps)
        penalties = {} if penalty is None else {"penalties": (penalty,)}
        return probe(gram, self.labels, self.trained, **penalties)


def search(task: Task, *, progress: Callable[[int, int], None]) -> list[TapSet]:
    """Probes on single taps, on the sets that have a name, and on those grown tap by tap.

    A set grows by the tap that leaves the least squared error: right answers are few steps, and
    of samples left out in turn they are biased where a probe knows nothing. No set appears twice.
    """
    depth = len(task.kernels)
    named = dict(_named(depth))
    most = min(GREEDY_TAPS, depth)
    total = depth + len(named) + sum(depth - size for size in range(1, most))
    done = 0

    def told(found: Probe) -> Probe:
        nonlocal done
        done += 1
        progress(done, total)
        return found

    singles = [TapSet(str(tap), (tap,), told(task.probe((tap,)))) for tap in range(depth)]
    sets = singles + [TapSet(name, taps, told(task.probe(taps))) for taps, name in named.items()]
    sets += _grown(task, min(singles, key=_error), most, told)
    return list({one.taps: one for one in reversed(sets)}.values())[::-1]


def _named(depth: int) -> Iterator[tuple[tuple[int, ...], str]]:
    """Sets of several taps that have a name, by their taps, ``all`` among them."""
    blocks = tuple(range(depth))
    for name in reversed(_NAMED):
        if int(name.partition(":")[2] or 1) <= depth:
            taps = resolve_taps(name, blocks)
            if 1 < len(taps) < depth:
                yield taps, name
    yield blocks, "all"


def _grown(
    task: Task, first: TapSet, most: int, told: Callable[[Probe], Probe]
) -> Iterator[TapSet]:
    """Sets that grow from one tap by the best other tap, up to so many."""
    last = first
    while len(last.taps) < most:
        others = [tap for tap in range(len(task.kernels)) if tap not in last.taps]
        grown = [tuple(sorted((*last.taps, tap))) for tap in others]
        # At one penalty: the best of the smaller set; the winner then gets its own.
        tried = [TapSet("", taps, told(task.probe(taps, last.probe.penalty))) for taps in grown]
        taps = min(tried, key=_error).taps
        last = TapSet(",".join(map(str, taps)), taps, task.probe(taps))
        yield last


def best_of(sets: Sequence[TapSet]) -> TapSet:
    """The set with the most right answers; among equals the one of least error."""
    return max(sets, key=_rank)


@dataclass(frozen=True)
class Advice:
    """The best set there is room for, and the fewest taps that are enough for linear probes.

    ``criterion`` is ``top1``, or ``squared error`` where no probe beats the commonest class;
    ``tolerance`` is in its units, and so is ``behind``, by which the advised set is worse than the
    best of all sizes.
    """

    chosen: TapSet
    fewest: TapSet
    best: TapSet
    criterion: str
    behind: float
    tolerance: float

    @property
    def is_within(self) -> bool:
        """Whether the set is as good as it should be: there may be no room for such."""
        return _is_within(self.behind, self.tolerance)


def advise(sets: Sequence[TapSet], commonest: float, at_most: int) -> Advice:
    """Choose the set of least squared error of those there is room for.

    Not the smallest that is nearly as good as the best: a mixer on every tap makes more of several
    taps than a linear probe does (docs/results.md, section "Extraction"). That set is named too,
    as ``fewest``: of equally small ones the better. Where even the best probe is no better than
    naming the commonest class, right answers tell nothing, and squared errors are compared. A
    difference is tolerated up to one standard error of it: probes answer the same samples, so that
    only those count which they answer differently; of right answers, 0.5 points always are.

    Args:
        sets: all of them.
        commonest: share of the commonest class.
        at_most: taps there is room for; where no set is so small, the smallest are left.
    """
    top = best_of(sets)
    is_by_hits = top.top1 > commonest + 2 * standard_error(top.probe.hits)
    best = top if is_by_hits else min(sets, key=_error)
    least = min(len(one.taps) for one in sets)
    found = [one for one in sets if len(one.taps) <= max(at_most, least)]
    behind = {one.taps: _behind(best, one, is_by_hits) for one in found}
    enough = [one for one in found if _is_within(*behind[one.taps])] or found
    chosen = min(found, key=_error)
    return Advice(
        chosen,
        min(enough, key=lambda one: (len(one.taps), behind[one.taps][0])),
        best,
        "top1" if is_by_hits else "squared error",
        *behind[chosen.taps],
    )


def _is_within(behind: float, tolerance: float) -> bool:
    return behind <= tolerance + _ROUNDING


def _behind(best: TapSet, other: TapSet, is_by_hits: bool) -> tuple[float, float]:  # noqa: FBT001 -- private
    """By how much a set is worse than the best, and by how much it may be."""
    if is_by_hits:
        losses = best.probe.hits.double() - other.probe.hits.double()
    else:
        losses = other.probe.errors - best.probe.errors
    uncertain = float(losses.std(correction=0)) / sqrt(len(losses))
    return float(losses.mean()), max(uncertain, TOLERANCE if is_by_hits else 0.0)


def standard_error(hits: Bool[Tensor, "n"]) -> float:
    """Standard error of a share of right answers.

    Example:
        >>> import torch
        >>> round(standard_error(torch.arange(100) < 50), 3)
        0.05
    """
    share = float(hits.double().mean())
    return sqrt(share * (1 - share) / len(hits))


def _error(one: TapSet) -> float:
    return float(one.probe.errors.mean())


def _rank(one: TapSet) -> tuple[float, float]:
    return one.top1, -one.probe.loss
