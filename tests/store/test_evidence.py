"""Claims of losa.store.evidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from losa.errors import StoreError
from losa.store import Plan, files, layout
from losa.store.evidence import gather_evidence, plan_problems
from losa.store.listing import listing_digest
from losa.store.plan import Numerics, SplitPlan
from losa.store.seal import seal_digest
from tests.store.build import samples, small_plan, small_store

SPARE = layout.spare_object(layout.PLAN_OBJECT)
TABLE = layout.samples_object("val")


@pytest.fixture
def plan() -> Plan:
    plan = small_plan()
    listed = samples(plan)
    splits = {
        name: SplitPlan(item.samples, item.rows, listing_digest(listed[name]))
        for name, item in plan.splits.items()
    }
    return replace(plan, splits=splits)


@pytest.fixture
def store(tmp_path: Path, plan: Plan) -> Path:
    return small_store(tmp_path / "s.zarr", plan)


def unseal(path: Path) -> None:
    (path / layout.SEALED_OBJECT).unlink()


def put_plan(path: Path, name: str, plan: Plan) -> None:
    (path / name).write_bytes(files.canonical_json(plan.to_json()))


def test_the_seal_tells_which_plan_is_right(store: Path, plan: Plan) -> None:
    put_plan(store, layout.PLAN_OBJECT, replace(plan, order_seed=5))
    assert gather_evidence(store).plan == plan
    put_plan(store, SPARE, replace(plan, order_seed=5))
    evidence = gather_evidence(store)
    assert evidence.plan is None
    whats = {problem.path: problem.what for problem in plan_problems(evidence)}
    assert set(whats.values()) == {"is not the file that was sealed"}
    assert set(whats) == {layout.PLAN_OBJECT, SPARE}
    with pytest.raises(StoreError, match=r"plan\.json: is damaged, and so is its second copy"):
        _ = evidence.sound_plan


def test_without_a_seal_the_root_tells_which_plan_is_right(store: Path, plan: Plan) -> None:
    unseal(store)
    put_plan(store, layout.PLAN_OBJECT, replace(plan, order_seed=5))
    assert gather_evidence(store).plan == plan
    (store / layout.ROOT_OBJECT).unlink()
    assert gather_evidence(store).plan is None


def test_plans_that_the_root_cannot_tell_apart_are_both_doubted(store: Path, plan: Plan) -> None:
    unseal(store)
    put_plan(store, SPARE, replace(plan, numerics=Numerics("cpu", None, 5)))
    evidence = gather_evidence(store)
    assert evidence.plan is None
    whats = [problem.what for problem in plan_problems(evidence)]
    assert whats == ["differs from its second copy, and nothing tells which is right"] * 2


def test_a_plan_that_is_no_json_or_another_spelling_is_damaged(store: Path, plan: Plan) -> None:
    unseal(store)
    (store / layout.PLAN_OBJECT).write_bytes(b"{")
    assert gather_evidence(store).plan == plan
    data = (store / SPARE).read_bytes()
    (store / layout.PLAN_OBJECT).write_bytes(data.replace(b":", b": "))
    assert gather_evidence(store).plan == plan
    (store / SPARE).write_bytes(b"{")
    (store / layout.PLAN_OBJECT).unlink()
    problems = list(plan_problems(gather_evidence(store)))
    assert problems[0].what == "is missing"
    assert problems[1].what.startswith("is not sound JSON")


def without(name: str) -> Callable[[dict[str, dict[str, str]]], object]:
    return lambda seal: seal["files"].pop(name)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (without("train/zarr.json"), "does not list every file"),
        (lambda seal: seal.pop("files"), "is not as losa writes it"),
    ],
)
def test_a_seal_that_does_not_vouch_for_every_file_vouches_for_none(
    store: Path, change: Callable[[object], object], what: str
) -> None:
    seal = files.read_json(store / layout.SEALED_OBJECT)
    change(seal)
    seal["digest"] = seal_digest(seal)
    (store / layout.SEALED_OBJECT).write_bytes(files.canonical_json(seal))
    evidence = gather_evidence(store)
    assert not evidence.is_sealed
    assert evidence.seal_damage is not None
    assert evidence.seal_damage.what == what


def test_without_a_seal_the_plan_tells_which_samples_table_is_right(store: Path) -> None:
    unseal(store)
    sound = (store / TABLE).read_bytes()
    for data in (sound.replace(b"val/003", b"val/004"), b"[1]\n"):
        (store / TABLE).write_bytes(data)
        evidence = gather_evidence(store)
        right, problems = evidence.judge(TABLE)
        assert right == [layout.spare_object(TABLE)]
        assert [(found.path, found.what) for found in problems] == [
            (TABLE, "differs from its second copy")
        ]
        assert [sample.key for sample in evidence.listing("val")][3] == "val/003"


def test_a_samples_table_that_is_left_alone_is_believed_if_the_plan_agrees(store: Path) -> None:
    unseal(store)
    (store / TABLE).unlink()
    assert gather_evidence(store).judge(TABLE)[0] == [layout.spare_object(TABLE)]
    (store / layout.spare_object(TABLE)).write_bytes(b"[1]\n")
    right, problems = gather_evidence(store).judge(TABLE)
    assert right == []
    assert [problem.what for problem in problems] == ["is missing", "is not what the plan says"]


def test_a_statistic_of_another_size_is_not_the_right_one(store: Path) -> None:
    unseal(store)
    name = layout.statistic_object(1, "mean")
    (store / name).write_bytes(b"1234")
    evidence = gather_evidence(store)
    assert evidence.right_copy(name) == layout.spare_object(name)
    (store / name).write_bytes(bytes(24))
    with pytest.raises(StoreError, match="nothing tells which is right"):
        gather_evidence(store).right_copy(name)


def test_a_store_whose_root_says_nothing_is_known_by_its_plan(store: Path, plan: Plan) -> None:
    for text in ("{}", '{"attributes":[]}', "x"):
        (store / layout.ROOT_OBJECT).write_text(text)
        assert gather_evidence(store).plan == plan
