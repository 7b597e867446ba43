"""F8: a plan that differs in any field of its identity is refused by name, and nothing changes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

import pytest

from losa.errors import MismatchError, StoreError
from losa.store import Plan
from losa.store.plan import check_same_identity, check_same_numerics
from tests.store.build import small_plan

PREPROCESSING: Final = {
    "img_size": [28, 28],
    "crop_pct": 0.9,
    "crop_mode": "center",
    "interpolation": "bicubic",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.2, 0.2, 0.2],
    "decode_rules": 1,
}
ONE_VIEW: Final = small_plan()
BASE: Final = replace(
    ONE_VIEW,
    preprocessing=PREPROCESSING,
    views=2,
    augment={"policy": "crop-flip", "rules": 1, "seed": 7},
    splits={
        name: replace(one, rows=one.samples * (2 if name == "train" else 1))
        for name, one in ONE_VIEW.splits.items()
    },
)
OTHER_DTYPE: Final = "float32"
APART: Final = {"numerics", "exponents", "writer", "calibration_split"}
"""Fields of a plan that are no part of its identity."""


def leaves(value: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where every value lies that is no object itself."""
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from leaves(inner, (*above, key))
        else:
            yield (*above, key)


def altered(identity: Mapping[str, Any], place: tuple[str, ...]) -> dict[str, Any]:
    """The same identity but for one value, which is another of its kind."""
    value: dict[str, Any] = json.loads(json.dumps(identity))
    inner = value
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = another(inner[place[-1]])
    return value


def another(value: Any) -> Any:
    if isinstance(value, list):
        return [*value[:-1], another(value[-1])]
    if isinstance(value, str):
        return (
            OTHER_DTYPE if value == BASE.spec.dtype else value[:-1] + ("0", "1")[value[-1] == "0"]
        )
    return value + 1


def disguised(plan: Plan, identity: dict[str, Any]) -> Plan:
    """A plan that says to have another identity, such as no plan of this version can have."""

    class Disguised(Plan):
        @property
        def identity(self) -> dict[str, Any]:
            return identity

    return Disguised(**{item.name: getattr(plan, item.name) for item in fields(Plan)})


PLACES: Final = list(leaves(BASE.identity))


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_another_value_of_any_field_is_refused_with_exit_5_and_its_name(
    place: tuple[str, ...],
) -> None:
    other = disguised(BASE, altered(BASE.identity, place))
    assert other.digest != BASE.digest
    for ours, theirs in ((other, BASE), (BASE, other)):
        with pytest.raises(MismatchError) as caught:
            check_same_identity(Path("s.zarr"), ours, theirs)
        assert caught.value.exit_code == 5
        assert f"{'.'.join(place)}: " in caught.value.what
        assert "\n" not in str(caught.value)


def test_a_field_that_only_one_of_both_has_is_refused_by_name() -> None:
    for place in PLACES:
        value = altered(BASE.identity, place)
        inner = value
        for key in place[:-1]:
            inner = inner[key]
        del inner[place[-1]]
        with pytest.raises(MismatchError, match=rf"{'.'.join(place)}: .* / None"):
            check_same_identity(Path("s.zarr"), BASE, disguised(BASE, value))


def test_every_field_of_a_plan_is_part_of_its_identity_or_known_not_to_be() -> None:
    """A field that somebody adds and forgets fails here."""
    changed = {
        "spec": replace(BASE.spec, channels=7),
        "backbone": {},
        "preprocessing": {},
        "dataset": "other",
        "classes": ("a",),
        "splits": {},
        "shard_rows": 9,
        "order_seed": 9,
        "calibration_rows": 9,
        "views": 3,
        "augment": None,
        "test_views": 2,
    }
    assert {item.name for item in fields(Plan)} == changed.keys() | APART
    for name, value in changed.items():
        other = replace(BASE, **{name: value})  # type: ignore[arg-type]  # one of each kind
        assert other.digest != BASE.digest, name
    assert set(BASE.to_json()) == {"format", "identity", *APART}


def test_every_field_that_can_differ_comes_back_from_the_file() -> None:
    refused = {}
    for place in PLACES:
        value = {**BASE.to_json(), "identity": altered(BASE.identity, place)}
        try:
            assert Plan.from_json(value, Path("plan.json")).identity == value["identity"]
        except StoreError as error:
            refused[place] = error.what
    # A split has as many rows as its samples have views: none of the three can differ alone.
    train, val = ("dataset", "splits", "train"), ("dataset", "splits", "val")
    found = {
        ("views",): "rows is 40",
        (*train, "samples"): "rows is 40",
        (*train, "rows"): "rows is 41",
        (*val, "samples"): "samples is 9",
        (*val, "rows"): "rows is 9",
    }
    wanted = {place: f"is not a losa plan (ValueError('{what}'))" for place, what in found.items()}
    assert refused == wanted


def test_every_field_of_the_numerics_but_the_batch_size_is_refused_by_name() -> None:
    ours = BASE.numerics
    other = {"device": "cuda", "autocast": "bfloat16", "batch_size": 64}
    assert set(ours.to_json()) == other.keys()
    for name, value in other.items():
        theirs = replace(ours, **{name: value})  # type: ignore[arg-type]  # one of each kind
        if name == "batch_size":
            check_same_numerics(Path("s.zarr"), ours, theirs)
            continue
        with pytest.raises(MismatchError, match=f"{name}: ") as caught:
            check_same_numerics(Path("s.zarr"), ours, theirs)
        assert caught.value.exit_code == 5
