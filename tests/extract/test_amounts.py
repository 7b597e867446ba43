"""Claims of losa.extract.amounts: figures that people can read."""

from __future__ import annotations

import pytest

from losa.extract.amounts import in_bytes, in_time


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (2.5e15, "2.5e+03 TB")]
)
def test_bytes_have_three_digits_and_a_unit(count: float, text: str) -> None:
    assert in_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.05, "0.05 s"), (9.96, "10 s"), (7199.0, "7199 s"), (7200.0, "2.0 h")]
)
def test_seconds_become_hours_when_they_are_many(seconds: float, text: str) -> None:
    assert in_time(seconds) == text
