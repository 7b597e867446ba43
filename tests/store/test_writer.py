"""Claims of losa.store.writer."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from losa.errors import LockedError, ResourceError, StoreError
from losa.store import StoreWriter, files, layout, lock, system
from losa.store.system import System
from losa.store.writer import SEVERAL_BOOTS, unsynced_boot
from tests.store.build import begin_store, features, fill_store, small_plan, small_store, tree
from tests.store.elsewhere import Elsewhere, claim_path, foreign_claim
from tests.store.systems import failing


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


@pytest.mark.parametrize("space", ["elsewhere", "another"])
def test_a_claim_of_another_host_or_container_is_respected_while_it_beats(
    tmp_path: Path, space: str
) -> None:
    path = tmp_path / "s.zarr"
    begin_store(path, small_plan({"train": 8}))
    host = "elsewhere" if space == "elsewhere" else os.uname().nodename
    owner = {"host": host, "boot": files.boot_id(), "space": space}
    foreign_claim(path, **owner, beat="0")

    def beat(second: int) -> None:
        if second in (500, 1000):
            foreign_claim(path, **owner, beat=str(second))

    elsewhere = Elsewhere(beat)
    with StoreWriter(path, clock=elsewhere.clock) as writer:
        assert list(writer.claimed()) == []
        with pytest.raises(LockedError, match="written by process 7 on"):
            writer.seal()
        assert writer.wait_for_others()
        assert [task.shard for task in writer.claimed()] == [0]
    assert elsewhere.seconds == 1600


def test_a_claim_of_another_host_that_stands_still_for_ten_minutes_is_taken_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s.zarr"
    begin_store(path, small_plan({"train": 8}))
    foreign_claim(path)
    elsewhere = Elsewhere()
    with caplog.at_level("INFO", "losa"), StoreWriter(path, clock=elsewhere.clock) as writer:
        assert writer.wait_for_others()
        assert [task.shard for task in writer.claimed()] == [0]
    assert elsewhere.seconds == 600
    told = "waiting for 1 shards that others write, the first: process 7 on elsewhere"
    assert caplog.messages == [told]


def test_a_shard_that_another_host_commits_is_not_waited_for_any_longer(tmp_path: Path) -> None:
    plan = small_plan({"train": 8})
    path = tmp_path / "s.zarr"
    begin_store(path, plan)
    foreign_claim(path)
    whole = small_store(tmp_path / "t.zarr", plan)

    def finish(second: int) -> None:
        if second == 40:
            for name, data in tree(whole).items():
                if name != layout.SEALED_OBJECT:
                    (path / name).write_bytes(data)
            claim_path(path).unlink()

    elsewhere = Elsewhere(finish)
    with StoreWriter(path, clock=elsewhere.clock) as writer:
        assert list(writer.claimed()) == []
        assert not writer.wait_for_others()
        writer.seal()
    assert elsewhere.seconds == 40
    assert tree(path) == tree(whole)


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


def test_a_writer_refuses_what_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"plan\.json: is missing"):
        StoreWriter(tmp_path)


def test_a_store_that_is_being_mended_is_not_written(tmp_path: Path) -> None:
    begin_store(tmp_path / "s.zarr", small_plan())
    with (
        lock.alone(tmp_path / "s.zarr"),
        pytest.raises(LockedError, match="is being repaired or cleaned"),
    ):
        StoreWriter(tmp_path / "s.zarr")


def test_two_creators_at_once_leave_one_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.zarr"

    class Overtaken(System):
        """Another process publishes its store just before ours is."""

        def rename(self, source: Path, target: Path) -> None:
            monkeypatch.undo()
            begin_store(path, small_plan({"train": 4}))
            super().rename(source, target)

    monkeypatch.setattr(system, "current", Overtaken())
    with pytest.raises(LockedError, match="was created by another process"):
        begin_store(path, small_plan())
    with StoreWriter(path) as writer:
        assert writer.plan == small_plan({"train": 4})
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.zarr"]


def test_a_folder_that_cannot_be_named_is_a_resource_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "current", failing("rename", errno.EROFS))
    with pytest.raises(ResourceError, match=r"s\.zarr: read-only file system"):
        begin_store(tmp_path / "s.zarr", small_plan())
    assert list(tmp_path.iterdir()) == []


class Watched(System):
    """Notes which folders were synced."""

    def __init__(self) -> None:
        self.synced: list[Path] = []

    def sync_folder(self, path: Path) -> None:
        self.synced.append(path)
        super().sync_folder(path)


def test_the_folders_above_a_new_store_last_as_long_as_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched()
    monkeypatch.setattr(system, "current", watched)
    begin_store(tmp_path / "a/b/s.zarr", small_plan(), durable=True)
    assert watched.synced[:2] == [tmp_path, tmp_path / "a"]
    assert watched.synced[-1] == tmp_path / "a/b"
    # Its creator may have been killed before that: whoever goes on makes up for it.
    watched.synced.clear()
    with StoreWriter(tmp_path / "a/b/s.zarr"):
        assert watched.synced == [tmp_path / "a/b"]


def test_folders_that_a_copy_dropped_are_made_again_and_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, plan = tmp_path / "s.zarr", small_plan()
    begin_store(path, plan)
    for name in ("commits", "claims", "tmp"):
        shutil.rmtree(path / ".losa" / name)
    watched = Watched()
    monkeypatch.setattr(system, "current", watched)
    with StoreWriter(path):
        assert {path / ".losa", path / ".losa/commits", path / ".losa/claims"} <= {*watched.synced}
    fill_store(path, plan)
    assert tree(path) == tree(small_store(tmp_path / "t.zarr", plan))


def test_a_writer_takes_from_a_sealed_store_only_what_does_not_belong(tmp_path: Path) -> None:
    path = small_store(tmp_path / "s.zarr")
    before = tree(path)
    shutil.rmtree(path / ".losa/claims")
    # The name came back when the power went just after sealing.
    (path / layout.TMP_FOLDER / "1-1-otherboot000-9").write_bytes(b"{}")
    with StoreWriter(path) as writer:
        writer.withdraw_damaged()
        assert list(writer.claimed()) == []
        writer.seal()
    assert tree(path) == before
    assert not (path / ".losa/claims").exists()
    shutil.rmtree(path / ".losa/tmp")
    with StoreWriter(path) as writer:
        assert writer.is_sealed


def test_a_claim_that_comes_after_the_commit_or_the_seal_is_not_kept(tmp_path: Path) -> None:
    plan = small_plan({"train": 8})
    path = tmp_path / "s.zarr"
    begin_store(path, plan)
    with StoreWriter(path) as writer:
        (path / layout.SEALED_OBJECT).write_bytes(b"{}")
        assert list(writer.claimed()) == []
        (path / layout.SEALED_OBJECT).unlink()
        (task,) = writer.tasks()
        (path / layout.commit_object(task.split, task.shard)).write_bytes(b"{}")
        assert not writer._take(task)
        assert not claim_path(path).exists()


def test_a_store_that_lacks_shards_nobody_writes_is_not_sealed(tmp_path: Path) -> None:
    begin_store(tmp_path / "s.zarr", small_plan())
    with (
        StoreWriter(tmp_path / "s.zarr") as writer,
        pytest.raises(LockedError, match=r"shard 0 of train is not written yet; run the same"),
    ):
        writer.seal()


LEFT: dict[str, tuple[str, bytes | None, str]] = {
    "no tokens": ("train/tokens/tap01/c.0.0.0", None, "tap01/c.0.0.0 is missing"),
    "empty tokens": ("train/tokens/tap01/c.0.0.0", b"", "c.0.0.0 is 0 bytes, not 612"),
    "empty checks": ("train/check/tap03/c.0", b"", "tap03/c.0 is 0 bytes, not 32"),
    "empty record": (".losa/commits/train/000000.json", b"", "000000.json is not sound"),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_a_copy_left_behind_is_computed_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    plan = small_plan()
    path = small_store(tmp_path / "s.zarr", plan)
    before = tree(path)
    file, data, message = LEFT[name]
    (path / layout.SEALED_OBJECT).unlink()
    (path / layout.commit_object("val", 0)).unlink()
    (path / file).unlink()
    if data is not None:
        (path / file).write_bytes(data)
    with StoreWriter(path) as writer:
        writer.withdraw_damaged()
        missing = [(task.split, task.shard) for task in writer.tasks()]
        assert missing == [("train", 0), ("val", 0)]
    assert message in caplog.text
    assert "shard 0 of train is computed again" in caplog.text
    fill_store(path, plan)
    assert tree(path) == before


@pytest.mark.parametrize(
    ("boot", "withdrawn"), [("of before", 1), (files.boot_id(), 0), (None, 0)], ids=str
)
def test_contents_are_compared_after_a_boot_that_unsynced_writing_may_not_have_survived(
    tmp_path: Path, boot: str | None, withdrawn: int
) -> None:
    path = small_store(tmp_path / "s.zarr")
    (path / layout.SEALED_OBJECT).unlink()
    lost = path / "train/tokens/tap01/c.1.0.0"
    lost.write_bytes(bytes(lost.stat().st_size))
    if boot is not None:
        (path / layout.UNSYNCED_OBJECT).write_text(boot)
    with StoreWriter(path) as writer:
        writer.withdraw_damaged()
        assert len(writer.tasks()) == withdrawn


def test_unsynced_writing_is_noted_before_it_begins_and_no_more_once_sealed(tmp_path: Path) -> None:
    path, plan = tmp_path / "s.zarr", small_plan()
    begin_store(path, plan)
    with StoreWriter(path, durable=False) as writer:
        assert unsynced_boot(path) is None
        next(writer.claimed())
        assert unsynced_boot(path) == files.boot_id()
    fill_store(path, plan, durable=False)
    assert tree(path) == tree(small_store(tmp_path / "t.zarr", plan))


def test_a_note_of_an_earlier_boot_becomes_one_of_several(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    begin_store(path, small_plan())
    (path / layout.UNSYNCED_OBJECT).write_text("of before")
    with StoreWriter(path, durable=False) as writer:
        next(writer.claimed())
    assert unsynced_boot(path) == SEVERAL_BOOTS


def test_a_store_that_cannot_be_prepared_is_named_and_let_go_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.zarr"
    begin_store(path, small_plan())
    (path / layout.TMP_FOLDER / f"1-1-{files.process_space()}-0").write_bytes(b"")
    monkeypatch.setattr(system, "current", failing("unlink", errno.EROFS))
    with pytest.raises(ResourceError, match=r"s\.zarr: read-only file system"):
        StoreWriter(path)
    with lock.alone(path):
        pass


def test_temporaries_of_dead_processes_go_and_those_of_others_stay(tmp_path: Path) -> None:
    begin_store(tmp_path / "s.zarr", small_plan())
    scratch = tmp_path / "s.zarr" / layout.TMP_FOLDER
    dead, foreign, alive = f"1-1-{files.process_space()}-0", "1-1-elsewhere000-0", files.owner_tag()
    for name in (dead, foreign, alive):
        (scratch / name).write_bytes(b"")
    with StoreWriter(tmp_path / "s.zarr"):
        assert {entry.name for entry in scratch.iterdir()} == {foreign, alive}
