"""Fields are those of ``losa adapt``, and values are checked as there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from losa.config import AdaptConfig
from losa.errors import InputError
from losa.sweep.fields import NOT_SWEPT, SHARED, check_fields
from losa.sweep.mistakes import Mistakes


def checked(values: object, *, is_base: bool = False) -> dict[str, Any]:
    mistakes = Mistakes(Path("f"))
    found = check_fields(values, "list[0]", mistakes, is_base=is_base)
    mistakes.tell()
    return found


def test_values_become_what_the_configuration_holds() -> None:
    found = checked({"rank": 4, "lr": "1e-3", "head-lr": None, "mixer_norm": True, "pool": "cls"})
    assert found == {"rank": 4, "lr": 0.001, "head_lr": None, "mixer_norm": True, "pool": "cls"}
    assert {**AdaptConfig(**found).model_dump(), **found} == AdaptConfig(**found).model_dump()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([1], "not a mapping"),
        ({"rnk": 1}, "did you mean rank"),
        ({"rank": 0}, "greater than or equal to 1, not 0"),
        ({"rank": 1.5}, "valid integer"),
        ({"lr": float("nan")}, "finite"),
        ({"lr": float("inf")}, "finite"),
        ({"pool": "max"}, "'cls'"),
        ({"taps": [1, 2]}, "valid string"),
        ({"head-lr": 1, "head_lr": 1}, "twice"),
        *(({name: "x"}, name) for name in NOT_SWEPT),
        *(({name: "x"}, "one for the whole sweep") for name in SHARED),
    ],
)
def test_a_field_that_cannot_be_meant_is_a_mistake(values: object, told: str) -> None:
    with pytest.raises(InputError, match=told):
        checked(values)


def test_what_all_trials_share_is_given_in_the_base() -> None:
    assert checked({"device": "cpu", "read_threads": 3}, is_base=True)["device"] == "cpu"


def test_every_name_that_is_refused_is_a_field() -> None:
    assert {*NOT_SWEPT, *SHARED} <= AdaptConfig.model_fields.keys()
