"""A grid is every combination, counted without making them."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from losa.errors import InputError
from losa.sweep.grid import Grid, parse_grid
from losa.sweep.mistakes import Mistakes


def parsed(value: object) -> Grid:
    mistakes = Mistakes(Path("f"))
    found = parse_grid(value, "grid", mistakes)
    mistakes.tell()
    return found


def test_a_grid_is_the_product_of_its_axes_the_last_fastest() -> None:
    grid = parsed({"rank": [2, 4], "lr": ["1e-3", 0.1], "seed": [0, 1, 2]})
    wanted = itertools.product([2, 4], [0.001, 0.1], [0, 1, 2])
    assert [tuple(setting.values()) for setting in grid.settings()] == list(wanted)
    assert grid.count() == 12


def test_branches_lie_beside_the_rest_to_any_depth() -> None:
    inner = [{"pool": ["cls"]}, {"pool": ["mean"], "dropout": [0.1, 0.2]}]
    either = [{"adaptor": ["linear"]}, {"rank": [1, 2], "either": inner}]
    grid = parsed({"seed": [0, 1], "either": either})
    found = list(grid.settings())
    assert len(found) == grid.count() == 2 * (1 + 2 * (1 + 2))
    assert found[0] == {"seed": 0, "adaptor": "linear"}
    assert found[-1] == {"seed": 1, "rank": 2, "pool": "mean", "dropout": 0.2}


def test_a_grid_of_a_thousand_million_is_counted_at_once() -> None:
    axis = list(range(1, 1001))
    assert parsed({"rank": axis, "epochs": axis, "seed": axis}).count() == 10**9


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([], "not a mapping"),
        ({}, "not a mapping"),
        ({"rank": []}, "grid.rank is not a list of values"),
        ({"rank": 4}, "grid.rank is not a list of values, but 4"),
        ({"rank": [4, 4]}, r"grid.rank\[1\] repeats 4"),
        ({"rank": [4], "rnak": [1]}, "grid.rnak is not known"),
        ({"either": [{"rank": [1]}]}, "two or more"),
        ({"rank": [1], "either": [{"rank": [1]}, {"lr": [1]}]}, "beside and inside"),
    ],
)
def test_a_grid_that_cannot_be_meant_is_a_mistake(value: object, told: str) -> None:
    with pytest.raises(InputError, match=told):
        parsed(value)


def test_branches_end_somewhere() -> None:
    grid: dict[str, object] = {"rank": [1]}
    for _ in range(12):
        grid = {"either": [grid, {"lr": [1]}]}
    with pytest.raises(InputError, match="deep"):
        parsed(grid)
