"""Claims of losa.store.writer about several processes: who takes which shard, and who waits."""

from __future__ import annotations

from pathlib import Path

import pytest

from losa.store import StoreWriter
from losa.store.claims import ShardTask
from losa.store.writer import in_turn
from tests.store.build import begin_store, small_plan
from tests.store.elsewhere import Elsewhere, foreign_claim


def test_a_wait_ends_with_what_its_look_raises(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    begin_store(path, small_plan({"train": 8}))
    foreign_claim(path)
    looks = iter([None, None, ZeroDivisionError()])

    def look() -> None:
        if error := next(looks):
            raise error

    elsewhere = Elsewhere()
    with (
        StoreWriter(path, clock=elsewhere.clock) as writer,
        pytest.raises(ZeroDivisionError),
    ):
        writer.wait_for_others(look)
    assert elsewhere.seconds == 2


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_process_is_offered_every_shard_and_its_own_first(count: int) -> None:
    tasks = [ShardTask(split, shard, 0, 1) for split in ("train", "val") for shard in range(5)]
    for number in range(count):
        offered = in_turn(tasks, number, count)
        own = [task for task in tasks if task.shard % count == number]
        assert offered[: len(own)] == own
        assert sorted(offered, key=tasks.index) == tasks


def test_processes_that_claim_in_turns_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    begin_store(path, small_plan({"train": 48}))
    with StoreWriter(path) as first, StoreWriter(path) as second:
        turns = [iter(first.claimed(0, 2)), iter(second.claimed(1, 2))]
        given = [[next(turn).shard for turn in turns] for _ in range(3)]
        assert given == [[0, 1], [2, 3], [4, 5]]
        assert [list(turn) for turn in turns] == [[], []]
