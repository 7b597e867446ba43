"""Claims of losa.live.scouttext."""

from __future__ import annotations

from typing import Any

from losa.live import scouttext


def one(name: str, taps: list[int], top1: float) -> dict[str, Any]:
    return {
        "name": name,
        "taps": taps,
        "top1": top1,
        "error": 0.01,
        "held_out_top1": top1,
        "squared_error": 0.1,
        "bytes": 10**9 * len(taps),
    }


def found(**changes: Any) -> dict[str, Any]:
    sets = [one("0", [0], 0.4), one("1", [1], 0.8), one("all", [0, 1], 0.81)]
    advice = {**sets[1], "flag": "--taps 1", "share": 0.5, "fits_budget": None, "is_within": True}
    advice["tolerance"] = 0.011
    return {
        "trained": 80,
        "held_out": 20,
        "held_out_of": "val",
        "classes": 2,
        "plot": None,
        "evidence": "cells",
        "criterion": "top1",
        "commonest_class": 0.5,
        "caveat": "linear",
        "advice": {**advice, **changes.pop("advice", {})},
        "fewest": sets[1],
        "best": sets[2],
        "all_bytes": 2 * 10**9,
        "looks": {"summary": sets, "cells": sets},
        **changes,
    }


def test_every_block_has_a_row_and_every_evidence_a_column() -> None:
    assert scouttext.block_columns(found()) == ("block", "summary %", "cells %")
    assert scouttext.block_rows(found()) == [
        ("0", "40.0 ± 1.0", "40.0 ± 1.0"),
        ("1", "80.0 ± 1.0", "80.0 ± 1.0"),
    ]


def test_sets_are_listed_with_bytes_and_marks_and_of_single_blocks_the_best() -> None:
    rows = list(scouttext.set_rows(found()))
    assert all(len(row) == len(scouttext.SET_COLUMNS) for row in rows)
    assert [(row[0], row[5], row[6], row[-1]) for row in rows] == [
        ("1", "1", "50%", "advice, fewest"),
        ("all", "2", "100%", "best"),
    ]


def test_the_last_line_is_the_flag_and_what_it_costs() -> None:
    *_, last = scouttext.closing_lines(found())
    assert last == (
        "losa: keep --taps 1: 80.0 % (the best: 81.0 %, tolerance 1.1 points) at 50% of the bytes "
        "of all taps, 1 of 2 GB"
    )


def test_what_makes_an_advice_weak_is_said() -> None:
    def text(**changes: Any) -> str:
        return "\n".join(scouttext.closing_lines(found(**changes)))

    assert "the advice is weak" in text(criterion="squared error")
    assert "not even one tap fits" in text(advice={"fits_budget": False})
    assert "there is no room" in text(advice={"is_within": False})
    weak = ("the advice is weak", "not even one tap", "there is no room", "would be enough")
    assert not any(words in text() for words in weak)


def test_fewer_taps_that_are_enough_for_linear_probes_are_named() -> None:
    lines = list(scouttext.closing_lines(found(fewest=one("7", [], 0.8))))
    assert lines[-2] == (
        "losa: --taps 7 would be enough for linear probes (80.0 %); mixers make more of several "
        "taps"
    )
