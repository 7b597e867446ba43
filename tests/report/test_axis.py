"""Ticks and places."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from losa.report.axis import Axis, amount, axis_of

VALUES = st.floats(-1e9, 1e9, allow_subnormal=False).map(lambda value: round(value, 6))


@given(st.lists(VALUES, min_size=1, max_size=9))
def test_every_value_stands_within_the_axis(values: list[float]) -> None:
    axis = axis_of(values, (300.0, 10.0), may_log=True)
    assert all(10.0 <= axis.place(value) <= 300.0 for value in values)


@given(st.lists(VALUES, min_size=1, max_size=9), st.booleans())
def test_ticks_ascend_within_the_axis_and_are_few(values: list[float], may_log: bool) -> None:
    axis = axis_of(values, (0.0, 100.0), may_log=may_log)
    ticks = axis.ticks()
    assert ticks == sorted(set(ticks))
    assert len(ticks) <= 12
    span = 1e-6 * (abs(axis.high) + abs(axis.low))
    assert all(axis.low - span <= tick <= axis.high + span for tick in ticks)


def test_costs_that_differ_much_stand_by_their_logarithm() -> None:
    assert axis_of([1.0, 1000.0], (0.0, 1.0), may_log=True).is_log
    assert not axis_of([1.0, 2.0], (0.0, 1.0), may_log=True).is_log
    assert not axis_of([0.0, 1000.0], (0.0, 1.0), may_log=True).is_log


def test_one_value_stands_in_the_middle() -> None:
    assert axis_of([5.0], (0.0, 100.0)).place(5.0) == 50.0
    assert Axis(3.0, 3.0, 0.0, 100.0).place(3.0) == 50.0


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (52224, "52.2 kB"), (2.5e12, "2.5 TB")],
)
def test_amounts_have_a_prefix_from_a_thousand(value: float | int, text: str) -> None:
    assert amount(value, "B") == text
