"""Ranges are drawn from as their names say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from losa.errors import InputError
from losa.sweep.mistakes import Mistakes
from losa.sweep.space import Choice, Range, Space, parse_space


def parsed(value: object) -> Space:
    mistakes = Mistakes(Path("f"))
    found = parse_space(value, "random.space", mistakes)
    mistakes.tell()
    return found


def drawn(space: Space, count: int = 4000) -> list[dict[str, Any]]:
    random = np.random.default_rng(3)
    return [space.draw(random) for _ in range(count)]


def test_a_uniform_range_has_equal_quarters() -> None:
    values = [one["dropout"] for one in drawn(parsed({"dropout": {"uniform": [0.1, 0.5]}}))]
    shares = np.histogram(values, np.linspace(0.1, 0.5, 5))[0] / len(values)
    np.testing.assert_allclose(shares, 0.25, atol=0.03)


def test_a_logarithmic_range_has_as_many_in_every_decade() -> None:
    values = [one["lr"] for one in drawn(parsed({"lr": {"log-uniform": ["1e-5", 0.1]}}))]
    shares = np.histogram(np.log10(values), np.arange(-5.0, 0.0))[0] / len(values)
    np.testing.assert_allclose(shares, 0.25, atol=0.03)


def test_whole_numbers_are_equally_frequent_up_to_both_ends() -> None:
    counts = Counter(one["rank"] for one in drawn(parsed({"rank": {"int": [3, 6]}})))
    assert set(counts) == {3, 4, 5, 6}
    assert all(isinstance(rank, int) for rank in counts)
    np.testing.assert_allclose([count / 4000 for count in counts.values()], 0.25, atol=0.03)


def test_logarithmic_whole_numbers_stay_inside_and_favour_the_small() -> None:
    ranks = [one["rank"] for one in drawn(parsed({"rank": {"log-int": [1, 64]}}))]
    assert (min(ranks), max(ranks)) == (1, 64)
    # Source: of [0.5, 64.5] in logarithms, the share below 8.5.
    assert np.mean(np.array(ranks) <= 8) == pytest.approx(np.log(17) / np.log(129), abs=0.03)


def test_a_branch_brings_its_own_ranges_and_nothing_of_the_others() -> None:
    linear = {"adaptor": {"choice": ["linear"]}}
    space = parsed({"lr": {"uniform": [0.1, 0.2]}, "either": [linear, {"rank": {"int": [1, 9]}}]})
    found = drawn(space, 400)
    assert {frozenset(one) for one in found} == {
        frozenset({"lr", "adaptor"}),
        frozenset({"lr", "rank"}),
    }
    assert np.mean(["rank" in one for one in found]) == pytest.approx(0.5, abs=0.1)


def test_a_choice_may_hold_nothing_and_text() -> None:
    assert parsed({"patience": {"choice": [None, 3]}}).ranges == {"patience": Choice((None, 3))}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({}, "not a mapping"),
        ({"rank": [1, 2]}, r"is not one range \(uniform"),
        ({"rank": {"int": [1, 2], "choice": [1]}}, "is not one range"),
        ({"lr": {"loguniform": [1, 2]}}, "did you mean log-uniform"),
        ({"lr": {"uniform": [1]}}, r"not \[low, high\]"),
        ({"lr": {"uniform": [0.2, 0.1]}}, "ends at 0.1, not above 0.2"),
        ({"weight_decay": {"log-uniform": [0, 1]}}, "no logarithm"),
        ({"lr": {"uniform": [0, 1]}}, "greater than 0"),
        ({"lr": {"int": [0.5, 2]}}, "no whole number"),
        ({"rank": {"uniform": [1, 9]}}, "valid integer"),
        ({"pool": {"uniform": [1, 9]}}, "'cls'"),
        ({"taps": {"uniform": ["a", "b"]}}, "no range of numbers"),
        ({"rank": {"choice": []}}, "not a list of values"),
        ({"rank": {"choice": [1, 1]}}, "repeats 1"),
        ({"either": {}}, "two or more"),
        ({"rank": {"int": [1, 2]}, "either": [{"rank": {"int": [1, 2]}}] * 2}, "beside and inside"),
    ],
)
def test_a_space_that_cannot_be_meant_is_a_mistake(value: object, told: str) -> None:
    with pytest.raises(InputError, match=told):
        parsed(value)


def test_a_range_says_what_it_draws() -> None:
    assert Range("log-int", 1.0, 4.0).is_log
    assert Range("log-int", 1.0, 4.0).is_whole
    assert not Range("uniform", 1.0, 4.0).is_whole
