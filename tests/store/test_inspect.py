"""Claims of losa.store.inspect."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from losa.errors import StoreError
from losa.store import Plan, StoreWriter, files, layout, open_store
from losa.store.claims import Claims, ShardTask
from losa.store.inspect import describe_store, watch_store
from tests.store.build import begin_store, features, fill_store, small_plan, small_store
from tests.store.elsewhere import Elsewhere, claim_path, foreign_claim, here


def test_an_unfinished_store_is_described_with_its_progress(tmp_path: Path) -> None:
    begin_store(tmp_path / "s.zarr", small_plan())
    found = describe_store(tmp_path / "s.zarr")
    assert found["sealed"] is False
    assert found["store_id"] is None
    assert found["splits"]["train"] == {"rows": 20, "shards": 3, "committed": 0}


def test_a_sealed_store_is_described_with_its_id_and_bytes(tmp_path: Path) -> None:
    path = small_store(tmp_path / "s.zarr")
    found = describe_store(path)
    assert found["store_id"] == open_store(path).store_id
    assert found["token_bytes"] == 28 * 2 * 5 * 6 * 2
    assert (found["views"], found["augment"]) == (1, None)


def test_a_store_without_its_empty_folders_is_described(tmp_path: Path) -> None:
    begin_store(tmp_path / "s.zarr", small_plan())
    for name in ("commits", "claims", "tmp"):
        shutil.rmtree(tmp_path / "s.zarr/.losa" / name)
    assert describe_store(tmp_path / "s.zarr")["splits"]["val"]["committed"] == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:0],
        lambda data: data[:-9],
        lambda data: data.replace(b'"ok":20', b'"ok":19'),
        lambda data: data.replace(b",", b", ", 1),
    ],
)
def test_of_a_damaged_seal_no_id_is_made_up(
    tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    seal = small_store(tmp_path / "s.zarr") / layout.SEALED_OBJECT
    before = files.read_file(seal)
    seal.write_bytes(change(before))
    assert seal.read_bytes() != before
    with pytest.raises(StoreError) as caught:
        describe_store(tmp_path / "s.zarr")
    assert caught.value.subject == str(seal)


def test_whoever_writes_an_unfinished_store_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    begin_store(path, small_plan())
    with StoreWriter(path, durable=False) as writer:
        next(writer.claimed())
        dead = here(pid=2**22 + 1)
        claim_path(path, ShardTask("val", 0, 0, 8)).write_text(json.dumps(dead))
        os.utime(claim_path(path), (1e9, time.time() - 70))
        os.mkfifo(claim_path(path).with_name("000009"))
        claim_path(path).with_name("000008").symlink_to(claim_path(path))
        claim_path(path).with_name("of-a-stranger").write_text("{}")
        ours, theirs = describe_store(path)["claims"]
    assert ours.pop("beat_age_seconds") == pytest.approx(70, abs=20)
    where = {"host": os.uname().nodename}
    assert ours == {"split": "train", "shard": 0, "pid": os.getpid(), "dead": False, **where}
    assert theirs.pop("beat_age_seconds") < 60
    assert theirs == {"split": "val", "shard": 0, "pid": 2**22 + 1, "dead": True, **where}
    claim_path(path).with_name("000009").unlink()
    fill_store(path, small_plan())
    assert describe_store(path)["claims"] == []


def test_a_claim_that_is_given_back_meanwhile_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.zarr"
    begin_store(path, small_plan())
    foreign_claim(path)

    def gone(_: Path) -> bytes:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_bytes", gone)
    assert Claims(path).listed() == []


def test_a_watched_store_tells_its_pace_until_it_is_sealed(tmp_path: Path) -> None:
    path, plan = tmp_path / "s.zarr", small_plan({"train": 40})
    begin_store(path, plan)
    elsewhere = Elsewhere(lambda second: write_one(path, plan) if second != 2 else None)
    paces = []
    for found in watch_store(path, elsewhere.sleep, elsewhere.now):
        paces.append(found["rows_per_second"])
        done = found["splits"]["train"]["committed"]
        if done == 5:
            fill_store(path, plan)
    # Looks every two seconds: at nothing, at nothing again, and then at a shard of 8 more each.
    assert paces == [None, 0.0, 2.0, 2.67, 3.0, 3.2, 3.33, 2.86]
    assert found["sealed"]


def write_one(path: Path, plan: Plan) -> None:
    """Write the next missing shard, if there is one."""
    with StoreWriter(path, durable=False) as writer:
        for task in writer.claimed():
            with writer.shard(task) as shard:
                planes = features(plan, task.split)[:, task.first : task.stop]
                shard.write(list(planes), np.ones(task.rows, np.uint8))
            return
