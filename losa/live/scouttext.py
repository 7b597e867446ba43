"""What a scout found, for people: rows of two tables, and the sentences below them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

SET_COLUMNS: Final = (
    *("taps", "top-1 %", "± SE", "held out %", "sq. error", "GB", "of all", "points per GB", ""),
)


def block_columns(found: Mapping[str, Any]) -> tuple[str, ...]:
    """Columns of the table of single blocks: one for each evidence."""
    return ("block", *(f"{name} %" for name in found["looks"]))


def block_rows(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Top-1 of every single block by each evidence, with one standard error."""
    by_evidence = [
        {one["taps"][0]: one for one in sets if len(one["taps"]) == 1}
        for sets in found["looks"].values()
    ]
    return [
        (
            str(tap),
            *(f"{_points(of[tap]['top1'])} ± {_points(of[tap]['error'])}" for of in by_evidence),
        )
        for tap in sorted(by_evidence[0])
    ]


def set_rows(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Sets of taps by the better evidence, the smallest first: accuracy and bytes."""
    sets = found["looks"][found["evidence"]]
    marks = {name: found[name]["taps"] for name in ("advice", "fewest", "best")}
    single = max((one for one in sets if len(one["taps"]) == 1), key=lambda one: one["top1"])
    for one in sorted(sets, key=lambda one: (len(one["taps"]), one["top1"])):
        if len(one["taps"]) == 1 and one is not single and one["taps"] not in marks.values():
            continue
        yield (
            one["name"],
            _points(one["top1"]),
            _points(one["error"]),
            _points(one["held_out_top1"]),
            f"{one['squared_error']:.4f}",
            f"{one['bytes'] / 1e9:.3g}",
            f"{one['bytes'] / found['all_bytes']:.0%}",
            f"{100 * one['top1'] / (one['bytes'] / 1e9):.3g}",
            ", ".join(mark for mark, taps in marks.items() if taps == one["taps"]),
        )


def closing_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The advice, what it rests on, and what it cannot see."""
    advice, best = found["advice"], found["best"]
    yield (
        f"losa: {found['trained']} samples to train on (each left out in turn), {found['held_out']}"
        f" held out of {found['held_out_of']}, {found['classes']} classes; sets by "
        f"{found['evidence']}, the better evidence"
    )
    yield f"losa: {found['caveat']}"
    if found["plot"] is not None:
        yield f"losa: see {found['plot']}"
    if found["criterion"] != "top1":
        share = _points(found["commonest_class"])
        yield (
            f"losa: no probe is better than naming the commonest class ({share} %): sets are "
            "compared by squared error, and the advice is weak"
        )
    if advice["fits_budget"] is False:
        yield "losa: not even one tap fits the budget: see losa plan for smaller tokens and dtypes"
    elif not advice["is_within"]:
        yield f"losa: there is no room for a set that is as good as the best ({best['name']})"
    fewest = found["fewest"]
    if len(fewest["taps"]) < len(advice["taps"]):
        yield (
            f"losa: --taps {fewest['name']} would be enough for linear probes "
            f"({_points(fewest['top1'])} %); mixers make more of several taps"
        )
    tolerance = f", tolerance {_points(advice['tolerance'])} points"
    yield (
        f"losa: keep {advice['flag']}: {_points(advice['top1'])} % (the best: "
        f"{_points(best['top1'])} %{tolerance if found['criterion'] == 'top1' else ''}) at "
        f"{advice['share']:.0%} of the bytes of all taps, "
        f"{advice['bytes'] / 1e9:.3g} of {found['all_bytes'] / 1e9:.3g} GB"
    )


def _points(share: float) -> str:
    return f"{100 * share:.1f}"
