"""The parts of a cohort's loop: a clock that shares out, and members that stop for now.

What the loop does is held against single runs in test_cohort.py.
"""

from __future__ import annotations

import time

import pytest

from losa.adapt.cohortloop import Member, SharedClock
from losa.adapt.course import Course
from losa.adapt.trial import Position


def test_seconds_are_shared_out_among_those_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = SharedClock(4)
    now[0] = 8.0
    assert clock() == 2.0
    clock.share_among(2)
    now[0] = 10.0
    assert clock() == 3.0
    clock.share_among(0)
    now[0] = 11.0
    assert clock() == 4.0


@pytest.mark.parametrize(
    ("epoch", "stop", "is_there"), [(2, None, False), (1, 2, False), (2, 2, True)]
)
def test_a_member_stops_at_its_epoch(epoch: int, stop: int | None, *, is_there: bool) -> None:
    course = object.__new__(Course)
    course.position = Position(epoch, 0)
    member = Member(0, course, stop)
    assert member.is_at_stop is is_there
