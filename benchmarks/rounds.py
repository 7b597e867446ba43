"""Seconds of several contenders, taken in turns: best and median of the rounds, and their table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.record import note

Times = dict[str, list[float]]
"""Seconds of every round, by contender."""


def in_turns(contenders: Mapping[str, Callable[[], float]], rounds: int) -> Times:
    """Let every contender run once a round; each returns the seconds that count."""
    times: Times = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            times[name].append(run())
    return times


def ratio(times: Times, reference: str, name: str) -> dict[str, float]:
    """How much of the reference's speed a contender has: 1 is equal, more is faster.

    ``best`` compares the best rounds, ``median`` the medians; ``paired`` is the median of the
    rounds' own ratios, which a machine that is busy now and then disturbs least.

    Example:
        >>> ratio({"limit": [1.0, 2.0, 3.0], "ours": [2.0, 2.0, 4.0]}, "limit", "ours")
        {'best': 0.5, 'median': 1.0, 'paired': 0.75}
    """
    pairs = zip(times[reference], times[name], strict=True)
    return {
        "best": min(times[reference]) / min(times[name]),
        "median": statistics.median(times[reference]) / statistics.median(times[name]),
        "paired": statistics.median(limit / ours for limit, ours in pairs),
    }


def table(times: Times, nbytes: int) -> dict[str, dict[str, float]]:
    """Print a line for every contender, and return the same as JSON values."""
    rows = {}
    for name, seconds in times.items():
        best, median = min(seconds), statistics.median(seconds)
        rate = nbytes / best / 1e9
        note(f"{name:34} best {best * 1e3:9.1f} ms  median {median * 1e3:9.1f} ms {rate:7.2f} GB/s")
        rows[name] = {"best": round(best, 6), "median": round(median, 6)}
    return rows


def verdict(metric: str, found: Mapping[str, float], what: str, target: float) -> dict[str, Any]:
    """Print how a ratio compares with its target, and return both; the best rounds decide."""
    hit = found["best"] >= target
    others = ", ".join(f"{name} {value:.2f}" for name, value in found.items() if name != "best")
    note(f"{metric}: {found['best']:.2f} ({others}) {what}, target {target:g}: {outcome(hit=hit)}")
    rounded = {name: round(value, 4) for name, value in found.items()}
    return {**rounded, "target": target, "hit": hit}


def outcome(*, hit: bool) -> str:
    """Whether a target is hit, in a word.

    Example:
        >>> outcome(hit=True), outcome(hit=False)
        ('hit', 'miss')
    """
    return "hit" if hit else "miss"
