"""Claims of losa.store.plan."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from losa.errors import MismatchError, StoreError
from losa.features import TokenGrid
from losa.store.plan import (
    Numerics,
    Plan,
    SplitPlan,
    check_extends,
    check_same_identity,
    check_same_numerics,
)
from losa.version import __version__
from tests.store.build import small_plan

BASE = small_plan()
CHANGES: dict[str, dict[str, Any]] = {
    "features.taps": {"spec": BASE.spec.with_taps((1, 2))},
    "features.dtype": {"spec": replace(BASE.spec, dtype="float32")},
    "features.channels": {"spec": replace(BASE.spec, channels=7)},
    "features.backbone": {"spec": replace(BASE.spec, backbone="other")},
    "features.grid.height": {"spec": replace(BASE.spec, grid=TokenGrid(3, 2, prefix=1))},
    "features.grid.prefix": {"spec": replace(BASE.spec, grid=TokenGrid(2, 2, prefix=0))},
    "backbone.weights": {"backbone": {**BASE.backbone, "weights": "f" * 64}},
    "backbone.tokens": {"backbone": {**BASE.backbone, "tokens": "summary"}},
    "backbone.model": {"backbone": {**BASE.backbone, "model": "other"}},
    "preprocessing.img_size": {"preprocessing": {"img_size": [56, 56]}},
    "dataset.name": {"dataset": "other"},
    "dataset.classes": {"classes": ("a", "b")},
    "dataset.splits.train.rows": {"splits": {**BASE.splits, "train": SplitPlan(20, 21, "1" * 64)}},
    "dataset.splits.train.listing": {
        "splits": {**BASE.splits, "train": SplitPlan(20, 20, "2" * 64)}
    },
    "dataset.splits.test": {"splits": {**BASE.splits, "test": SplitPlan(1, 1, "1" * 64)}},
    "shard_rows": {"shard_rows": 4},
    "order_seed": {"order_seed": 1},
    "calibration_rows": {"calibration_rows": 5},
    "views": {"views": 2},
    "test_views": {"test_views": 2},
    "augment": {"augment": {"policy": "randaug", "rules": 1, "seed": 0}},
}


@pytest.mark.parametrize("field", CHANGES)
def test_every_identity_field_is_refused_by_name_when_it_differs(field: str) -> None:
    other = replace(BASE, **CHANGES[field])
    with pytest.raises(MismatchError, match=rf"holds another plan.*{field}: ") as caught:
        check_same_identity(Path("s.zarr"), other, BASE)
    assert caught.value.exit_code == 5
    assert other.digest != BASE.digest


def wider(**changes: Any) -> Plan:
    """The base at a third tap."""
    return replace(BASE, spec=BASE.spec.with_taps((1, 2, 3)), exponents=(0, 0, 0), **changes)


MORE = {**BASE.splits, "test": SplitPlan(1, 1, "1" * 64)}


@pytest.mark.parametrize("plan", [wider(), replace(BASE, splits=MORE), wider(splits=MORE)])
def test_more_taps_or_splits_extend_a_store_and_the_refusal_offers_it(plan: Plan) -> None:
    check_extends(Path("s.zarr"), plan, BASE)
    assert (plan.holds(BASE), BASE.holds(plan), BASE.holds(BASE)) == (True, False, True)
    with pytest.raises(MismatchError, match="--extend"):
        check_same_identity(Path("s.zarr"), plan, BASE)
    with pytest.raises(MismatchError) as caught:
        check_same_identity(Path("s.zarr"), BASE, plan)
    assert "--extend" not in str(caught.value)


def test_nothing_but_taps_and_splits_can_be_added() -> None:
    listing = {**MORE, "train": SplitPlan(20, 20, "2" * 64)}
    for plan, field in (
        (wider(order_seed=3), "order_seed: 3 / 0"),
        (wider(splits=listing), "dataset.splits.train.listing"),
    ):
        assert not plan.holds(BASE)
        with pytest.raises(MismatchError, match=rf"cannot be extended .*{field}"):
            check_extends(Path("s.zarr"), plan, BASE)
        with pytest.raises(MismatchError) as caught:
            check_same_identity(Path("s.zarr"), plan, BASE)
        assert "--extend" not in str(caught.value)


def test_a_plan_of_some_taps_keeps_their_exponents() -> None:
    plan = replace(BASE, exponents=(2, 5)).with_taps((3,))
    assert (plan.spec.taps, plan.exponents) == ((3,), (5,))


def test_the_split_of_calibration_is_in_the_plan_and_no_part_of_its_identity() -> None:
    other = replace(BASE, calibration_split="val")
    assert other.digest == BASE.digest
    assert Plan.from_json(other.to_json(), Path("plan.json")) == other
    strange = {**BASE.to_json(), "calibration_split": "../val"}
    with pytest.raises(StoreError, match=r"calibration_split is \.\./val|'\.\./val'"):
        Plan.from_json(strange, Path("plan.json"))


def test_batch_size_device_and_exponents_are_not_identity() -> None:
    other = replace(BASE, numerics=Numerics("cuda", "bfloat16", 64), exponents=(1, 0))
    check_same_identity(Path("s.zarr"), other, BASE)
    assert other.digest == BASE.digest


def test_another_numerics_class_is_refused_but_another_batch_size_is_not() -> None:
    check_same_numerics(Path("s"), Numerics("cpu", None, 8), Numerics("cpu", None, 32))
    with pytest.raises(MismatchError, match=r"autocast: bfloat16 / None, device: cuda / cpu"):
        check_same_numerics(Path("s"), Numerics("cuda", "bfloat16", 8), Numerics("cpu", None, 8))


def test_only_a_compiled_forward_is_written_down_and_is_a_class_of_its_own() -> None:
    plain, compiled = Numerics("cpu", None, 8), Numerics("cpu", None, 8, compiled=True)
    assert plain.to_json() == {"device": "cpu", "autocast": None, "batch_size": 8}
    plan = replace(BASE, numerics=compiled)
    assert Plan.from_json(plan.to_json(), Path("plan.json")) == plan
    check_same_numerics(Path("s"), compiled, compiled)
    with pytest.raises(MismatchError, match=r"compiled: True / None.*--compile"):
        check_same_numerics(Path("s"), compiled, plain)
    strange = {**plan.to_json(), "numerics": {**compiled.to_json(), "compiled": 1}}
    with pytest.raises(StoreError, match="1 is no bool"):
        Plan.from_json(strange, Path("plan.json"))


def test_a_plan_comes_back_from_its_json() -> None:
    assert Plan.from_json(BASE.to_json(), Path("plan.json")) == BASE


VIEWED = small_plan(views=3)
VIEW_ATTACKS: dict[str, tuple[tuple[str, ...], Any]] = {
    "too many views": (("identity", "views"), 65),
    "views of rows that are not there": (("identity", "views"), 4),
    "a row too few": (("identity", "dataset", "splits", "train", "rows"), 59),
    "views in val": (("identity", "dataset", "splits", "val", "rows"), 24),
    "nothing that augments": (("identity", "augment"), None),
    "a policy that is none": (("identity", "augment", "policy"), 3),
    "rules that are none": (("identity", "augment", "rules"), "1"),
    "an augmentation without a seed": (("identity", "augment", "seed"), -1),
}


def test_views_multiply_the_rows_of_train_alone() -> None:
    assert {name: item.rows for name, item in VIEWED.splits.items()} == {"train": 60, "val": 8}
    assert (VIEWED.views_of("train"), VIEWED.views_of("val"), BASE.views_of("train")) == (3, 1, 1)
    assert Plan.from_json(VIEWED.to_json(), Path("plan.json")) == VIEWED


def test_test_views_multiply_the_rows_of_every_other_split_and_are_not_augmented() -> None:
    splits = {**VIEWED.splits, "val": SplitPlan(8, 40, "1" * 64)}
    tested = replace(VIEWED, splits=splits, test_views=5)

    assert (tested.views_of("train"), tested.views_of("val")) == (3, 5)
    assert tested.augment_in("train") == VIEWED.augment
    assert tested.augment_in("val") is None
    assert Plan.from_json(tested.to_json(), Path("plan.json")) == tested


@pytest.mark.parametrize("bad", [0, 65, True, "2", 2])
def test_test_views_that_the_rows_do_not_have_are_refused(bad: Any) -> None:
    value: Any = copy.deepcopy(replace(BASE, exponents=(0, 1)).to_json())
    value["identity"]["test_views"] = bad
    with pytest.raises(StoreError, match=r"plan\.json: is not a losa plan"):
        Plan.from_json(value, Path("plan.json"))


def test_a_plan_of_one_view_says_nothing_of_augmentation() -> None:
    assert BASE.identity["views"] == 1
    assert "augment" not in BASE.identity
    assert "test_views" not in BASE.identity


def test_who_began_a_store_is_in_its_plan_and_no_part_of_its_identity() -> None:
    assert BASE.to_json()["writer"] == f"losa {__version__}"
    other = replace(BASE, writer="losa 9.9.9")
    assert other.digest == BASE.digest
    assert Plan.from_json(other.to_json(), Path("plan.json")).writer == "losa 9.9.9"


@pytest.mark.parametrize("field", ["identity", "numerics", "exponents", "writer"])
def test_an_incomplete_plan_is_refused(field: str) -> None:
    value = BASE.to_json()
    del value[field]
    with pytest.raises(StoreError, match=r"plan\.json: is not a losa plan"):
        Plan.from_json(value, Path("plan.json"))


LISTING = {"samples": 1, "rows": 1, "listing": "1" * 64}
GRID = {"height": 2**16, "width": 2**16, "time": 2**16, "prefix": 0}
SPLITS = ("identity", "dataset", "splits")
FEATURES = ("identity", "features")
ATTACKS: dict[str, tuple[tuple[str, ...], Any]] = {
    "a split above": ((*SPLITS, ".."), LISTING),
    "a split elsewhere": ((*SPLITS, "/etc"), LISTING),
    "a split below": ((*SPLITS, "a/b"), LISTING),
    "a split of two lines": ((*SPLITS, "a\n"), LISTING),
    "a split without name": ((*SPLITS, ""), LISTING),
    "a long split": ((*SPLITS, "a" * 65), LISTING),
    "no shard rows": (("identity", "shard_rows"), 0),
    "shard rows of a half": (("identity", "shard_rows"), 8.5),
    "true shard rows": (("identity", "shard_rows"), True),
    "shard rows beyond memory": (("identity", "shard_rows"), 2**40),
    "negative rows": ((*SPLITS, "train"), {**LISTING, "samples": -1, "rows": -1}),
    "rows beyond memory": ((*SPLITS, "train"), {**LISTING, "samples": 2**50, "rows": 2**50}),
    "rows and samples apart": ((*SPLITS, "train", "rows"), 19),
    "rows of one view": (("identity", "views"), 2),
    "no views": (("identity", "views"), 0),
    "true views": (("identity", "views"), True),
    "augmented views of one": (("identity", "augment"), {"policy": "a", "rules": 1, "seed": 0}),
    "no channels": ((*FEATURES, "channels"), 0),
    "channels as text": ((*FEATURES, "channels"), "6"),
    "a grid of nothing": ((*FEATURES, "grid", "height"), 0),
    "a negative prefix": ((*FEATURES, "grid", "prefix"), -1),
    "an endless grid": ((*FEATURES, "grid", "width"), 2**40),
    "a tap of a half": ((*FEATURES, "taps"), [1, 3.5]),
    "an exponent too few": (("exponents",), [0]),
    "an exponent too large": (("exponents",), [0, 1 << 20]),
    "an exponent of a half": (("exponents",), [0, 0.5]),
    "a seed that is none": (("identity", "order_seed"), -1),
    "a record beyond memory": ((*FEATURES, "grid"), GRID),
    "a name that is none": (("identity", "dataset", "name"), ["toy"]),
    "classes that are none": (("identity", "dataset", "classes"), ["a", 2]),
    "classes in one word": (("identity", "dataset", "classes"), "ab"),
    "a listing that is none": ((*SPLITS, "train", "listing"), 7),
    "a backbone that is none": ((*FEATURES, "backbone"), None),
    "weights that are none": (("identity", "backbone"), ["toy"]),
    "pixels made nohow": (("identity", "preprocessing"), 3),
    "a device that is none": (("numerics", "device"), 1),
    "a cast that is none": (("numerics", "autocast"), 16),
    "an exponent of integers": ((*FEATURES, "dtype"), "int8"),
    "a dtype that is none": ((*FEATURES, "dtype"), "int4"),
    "a cast of nothing": (("numerics", "autocast"), 0),
    "a calibration elsewhere": (("calibration_split",), "../train"),
    "a writer that is none": (("writer",), 1),
    "a writer of two lines": (("writer",), "losa 1\n"),
    "a stranger as writer": (("writer",), "zarr 3"),
}


@pytest.mark.parametrize("name", [*ATTACKS, *VIEW_ATTACKS])
def test_a_plan_that_no_extraction_writes_is_refused(name: str) -> None:
    place, bad = {**ATTACKS, **VIEW_ATTACKS}[name]
    base = BASE if name in ATTACKS else VIEWED
    value: Any = copy.deepcopy(replace(base, exponents=(0, 1)).to_json())
    inner = value
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = bad
    with pytest.raises(StoreError, match=r"plan\.json: is not a losa plan") as caught:
        Plan.from_json(value, Path("plan.json"))
    assert "\n" not in str(caught.value)
