"""Claims of losa.store.writer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from losa.errors import LockedError, ResourceError, StoreError
from losa.store import StoreWriter, files, layout, open_store
from losa.store.writer import Clock
from tests.store.build import begin_store, features, fill_store, small_plan, small_store, tree


def test_a_store_appears_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files, "sync_tree", broken)
    with pytest.raises(ResourceError, match="input/output error"):
        begin_store(tmp_path / "s.zarr", small_plan(), durable=True)
    assert list(tmp_path.iterdir()) == []


def test_creating_twice_leaves_the_first_store(tmp_path: Path) -> None:
    begin_store(tmp_path / "s.zarr", small_plan())
    before = tree(tmp_path / "s.zarr")
    with pytest.raises(LockedError, match="created by another process"):
        begin_store(tmp_path / "s.zarr", small_plan({"train": 4}))
    assert tree(tmp_path / "s.zarr") == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.zarr"]


def test_an_interrupted_shard_is_as_if_never_begun(tmp_path: Path) -> None:
    plan = small_plan()
    path = tmp_path / "s.zarr"
    begin_store(path, plan)
    before = tree(path)
    with StoreWriter(path) as writer:
        task = next(writer.claimed())
        shard = writer.shard(task).__enter__()
        shard.write(list(features(plan, "train")[:, :4]), np.ones(4, np.uint8))
        assert any((path / layout.TMP_FOLDER).iterdir())
        shard.__exit__(KeyboardInterrupt, None, None)
    assert tree(path) == before


def test_a_resumed_store_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    plan = small_plan()
    whole, resumed = tmp_path / "a.zarr", tmp_path / "b.zarr"
    small_store(whole, plan)
    begin_store(resumed, plan)
    while True:
        with StoreWriter(resumed, durable=False) as writer:
            task = next(writer.claimed(), None)
            if task is None:
                break
            with writer.shard(task) as shard:
                planes = features(plan, task.split)[:, task.first : task.stop]
                shard.write(list(planes), np.ones(task.rows, np.uint8))
    fill_store(resumed, plan)
    assert tree(whole) == tree(resumed)


def test_durable_and_fast_writing_give_the_same_bytes(tmp_path: Path) -> None:
    plan = small_plan()
    small_store(tmp_path / "a.zarr", plan)
    begin_store(tmp_path / "b.zarr", plan, durable=True)
    fill_store(tmp_path / "b.zarr", plan, durable=True)
    assert tree(tmp_path / "a.zarr") == tree(tmp_path / "b.zarr")


def test_a_live_claim_is_respected_and_named(tmp_path: Path) -> None:
    plan = small_plan({"train": 8})
    path = tmp_path / "s.zarr"
    begin_store(path, plan)
    code = (
        "import sys; from pathlib import Path; from losa.store import StoreWriter\n"
        "w = StoreWriter(Path(sys.argv[1])); next(w.claimed()); print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "held"
        with StoreWriter(path) as writer:
            assert list(writer.claimed()) == []
            with pytest.raises(LockedError, match=rf"written by process {holder.pid} on"):
                writer.seal()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    fill_store(path, plan)
    assert tree(path) == tree(small_store(tmp_path / "t.zarr", plan))


def test_a_claim_of_another_boot_is_taken_over(tmp_path: Path) -> None:
    plan = small_plan({"train": 8})
    path = tmp_path / "s.zarr"
    begin_store(path, plan)
    claim = path / layout.claim_object("train", 0)
    owner = {"host": os.uname().nodename, "boot": "before", "pid": os.getpid(), "start": 1}
    claim.write_text(json.dumps(owner))
    with StoreWriter(path) as writer:
        assert [task.shard for task in writer.claimed()] == [0]


class Elsewhere:
    """A clock whose every second something happens on another host."""

    def __init__(self, each_second: Callable[[int], None]) -> None:
        self.seconds = 0
        self.each_second = each_second

    def sleep(self, seconds: float) -> None:
        self.seconds += int(seconds)
        self.each_second(self.seconds)

    @property
    def clock(self) -> Clock:
        return Clock(lambda: float(self.seconds), self.sleep)


@pytest.mark.parametrize("space", ["elsewhere", "another"])
def test_a_claim_of_another_host_or_container_is_respected_while_it_beats(
    tmp_path: Path, space: str
) -> None:
    path = tmp_path / "s.zarr"
    begin_store(path, small_plan({"train": 8}))
    host = "elsewhere" if space == "elsewhere" else os.uname().nodename
    owner = {"host": host, "boot": files.boot_id(), "space": space, "pid": 1, "start": 1}
    claim = path / layout.claim_object("train", 0)
    claim.write_text(json.dumps({**owner, "beat": "0"}))

    def beat(second: int) -> None:
        if second == 30:
            claim.write_text(json.dumps({**owner, "beat": "1"}))

    elsewhere = Elsewhere(beat)
    with StoreWriter(path, clock=elsewhere.clock) as writer:
        assert list(writer.claimed()) == []
        with pytest.raises(LockedError, match="written by process 1 on"):
            writer.seal()
    assert elsewhere.seconds == 30


def test_a_claim_of_another_host_that_stands_still_for_ten_minutes_is_taken_over(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s.zarr"
    begin_store(path, small_plan({"train": 8}))
    owner = {"host": "elsewhere", "boot": "x", "space": "y", "pid": 7, "start": 1, "beat": "3"}
    (path / layout.claim_object("train", 0)).write_text(json.dumps(owner))
    theirs, others = (path / layout.TMP_FOLDER / name for name in ("7-1-y-4", "8-1-y-4"))
    theirs.write_bytes(b"half a shard")
    others.write_bytes(b"half a shard")
    elsewhere = Elsewhere(lambda _: None)
    with StoreWriter(path, clock=elsewhere.clock) as writer:
        assert [task.shard for task in writer.claimed()] == [0]
    assert elsewhere.seconds == 600
    assert not theirs.exists()
    assert others.exists()


def test_skipped_rows_keep_their_reason_in_the_commit_record(tmp_path: Path) -> None:
    plan = small_plan({"train": 8})
    path = tmp_path / "s.zarr"
    begin_store(path, plan)
    status = np.ones(8, np.uint8)
    status[5] = 3
    with StoreWriter(path, durable=False) as writer:
        for task in writer.claimed():
            with writer.shard(task) as shard:
                shard.skip(5, "train/002", 3, "cut short")
                shard.write(list(features(plan, "train")), status)
        writer.seal()
    commit = files.read_json(path / layout.commit_object("train", 0))
    assert commit["ok"] == 7
    assert commit["skipped"] == [{"row": 5, "key": "train/002", "code": 3, "message": "cut short"}]
    assert open_store(path).split("train").status.tolist() == status.tolist()
    assert open_store(path).sealed["splits"]["train"]["ok"] == 7


def test_no_file_of_a_sealed_store_tells_time_host_or_process(tmp_path: Path) -> None:
    content = b"".join(tree(small_store(tmp_path / "s.zarr")).values())
    for word in ('"host"', '"pid"', '"boot"', str(tmp_path), files.boot_id()):
        assert word.encode() not in content


def test_what_a_killed_creation_left_is_cleared_by_the_next(tmp_path: Path) -> None:
    dead = f".s.zarr.{os.getpid()}-1-{files.process_space()}-0"
    alive = f".s.zarr.{files.owner_tag()}"
    elsewhere = ".s.zarr.1-1-anotherhost0-0"
    for name in (dead, alive, elsewhere):
        (tmp_path / name).mkdir()
    small_store(tmp_path / "s.zarr")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(
        [alive, elsewhere, "s.zarr"]
    )


def test_claims_that_were_not_used_are_given_back(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    begin_store(path, small_plan())
    with StoreWriter(path) as writer:
        assert next(writer.claimed()).shard == 0
        assert any((path / ".losa/claims/train").iterdir())
    assert not any((path / ".losa/claims/train").iterdir())


def test_a_failed_write_ends_every_other_write_before_files_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = small_plan({"train": 8})
    begin_store(tmp_path / "s.zarr", plan)
    ended: list[str] = []

    def write_all(handle: int, data: memoryview) -> None:
        if not ended:
            ended.append("failed")
            raise OSError(28, "No space left on device")
        time.sleep(0.2)
        os.fstat(handle)
        ended.append("whole")

    with StoreWriter(tmp_path / "s.zarr", durable=False) as writer:
        shard = writer.shard(next(writer.claimed())).__enter__()
        monkeypatch.setattr(files, "write_all", write_all)
        with pytest.raises(ResourceError, match="no space left"):
            shard.write(list(features(plan, "train")), np.ones(8, np.uint8))
        shard.__exit__(ResourceError, None, None)
    assert ended == ["failed", "whole"]


def test_a_writer_refuses_what_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"plan\.json: is missing"):
        StoreWriter(tmp_path)
