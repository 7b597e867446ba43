"""A sweep's file: what it asks for, and every mistake of it in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from losa.errors import InputError
from losa.sweep.strategy import Halving, Strategy, parse_strategy

SPACE: dict[str, Any] = {"lr": {"log-uniform": [0.001, 0.1]}}


def parsed(**sections: Any) -> Strategy:
    return parse_strategy(sections, Path("s.yaml"))


def test_grid_list_and_random_follow_each_other() -> None:
    found = parsed(
        grid={"rank": [1, 2]}, list=[{"pool": "cls"}, {}], random={"samples": 2, "space": SPACE}
    )
    settings = list(found.settings())
    assert settings[:4] == [{"rank": 1}, {"rank": 2}, {"pool": "cls"}, {}]
    assert [*settings[4]] == [*settings[5]] == ["lr"]
    assert found.count() == len(settings) == 6


def test_seeds_repeat_every_setting_that_has_none_of_its_own() -> None:
    found = parsed(seeds=[3, 5], grid={"rank": [1, 2]}, list=[{"seed": 9}])
    assert list(found.settings()) == [
        *({"rank": rank, "seed": seed} for rank in (1, 2) for seed in (3, 5)),
        {"seed": 9},
    ]


def test_a_draw_depends_on_its_seed_and_its_number_alone() -> None:
    few, many, other = (
        list(parsed(random={"samples": n, "seed": seed, "space": SPACE}).settings())
        for n, seed in ((2, 4), (9, 4), (9, 5))
    )
    assert many[:2] == few
    assert len({one["lr"] for one in many}) == 9
    assert not {one["lr"] for one in many} & {one["lr"] for one in other}


def test_halving_and_optuna_have_defaults() -> None:
    assert parsed(grid={"rank": [1]}, halving={"rungs": [1, 4]}).halving == Halving((1, 4), 3)
    found = parsed(optuna={"trials": 7, "space": SPACE})
    assert found.optuna is not None
    assert (found.optuna.trials, found.optuna.seed, found.optuna.together) == (7, 0, 8)
    assert found.count() == 7
    assert list(found.settings()) == []


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({}, "gives no trials"),
        ({"base": {"rank": 2}}, "gives no trials"),
        ({"grdi": {"rank": [1]}}, "grdi is not known .did you mean grid"),
        ({"base": 3}, "base is not a mapping"),
        ({"base": {"lr": 0}}, "base.lr should be greater than 0, not 0"),
        ({"seeds": 3}, "seeds is not a list"),
        ({"seeds": []}, "seeds is not a list"),
        ({"seeds": [1, 1]}, r"seeds\[1\] repeats 1"),
        ({"seeds": [-1]}, r"seeds\[0\] should be greater"),
        ({"list": {}}, "list is not a list"),
        ({"list": [4]}, r"list\[0\] is not a mapping"),
        ({"list": [{"rank": "x"}]}, r"list\[0\].rank should be a valid integer"),
        ({"random": 3}, "random is not a mapping"),
        ({"random": {"samples": 3}}, "random.space is needed"),
        ({"random": {"space": SPACE}}, "random.samples is needed"),
        ({"random": {"samples": 0, "space": SPACE}}, "random.samples is 0, not 1 to 1,000,000"),
        ({"random": {"samples": True, "space": SPACE}}, "no whole number"),
        ({"random": {"samples": 2, "seed": "x", "space": SPACE}}, "random.seed is no seed"),
        ({"random": {"samples": 2, "space": {}}}, "random.space is not a mapping"),
        ({"random": {"samples": 2, "spcae": SPACE}}, "did you mean space"),
        ({"halving": {"eta": 2}}, "halving.rungs is needed"),
        ({"halving": {"rungs": 3}}, "halving.rungs is not a list"),
        ({"halving": {"rungs": [0]}}, r"halving.rungs\[0\] is 0"),
        ({"halving": {"rungs": [3, 3]}}, "does not rise"),
        ({"halving": {"rungs": [1], "eta": 1}}, "halving.eta is 1, not 2"),
        ({"optuna": {"trials": 2}}, "optuna.space is needed"),
        ({"grid": {"rank": [1]}, "optuna": {"trials": 2, "space": SPACE}}, "grid does not go with"),
        ({"seeds": [1], "optuna": {"trials": 2, "space": SPACE}}, "seeds does not go with"),
    ],
)
def test_a_file_that_cannot_be_meant_is_a_mistake(sections: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        parsed(**sections)
    assert str(caught.value).startswith("s.yaml: ")
    assert "\n" not in str(caught.value)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        parsed(base={"epoch": 3}, grid={"rnk": [1]}, random={"samples": 2}, halving={"rungs": []})
    for word in ("epochs?", "rank?", "random.space", "halving.rungs"):
        assert word in str(caught.value)
