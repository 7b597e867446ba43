"""Claims of losa.store.shardwriter."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from losa.errors import ResourceError
from losa.store import StoreWriter, files, layout, open_store, shardwriter, system
from losa.store.shardwriter import ShardWriter
from losa.store.system import System
from tests.store.build import begin_store, features, fill_store, small_plan, small_store, tree
from tests.store.elsewhere import TASK, claim_path, foreign_claim
from tests.store.systems import failing

PLAN = small_plan({"train": 8})
TOKENS = layout.tokens_object("train", 1, 0)
CHECK = layout.check_object("train", 1, 0)
COMMIT = layout.commit_object("train", 0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    begin_store(tmp_path / "s.zarr", PLAN)
    return tmp_path / "s.zarr"


@pytest.fixture
def writer(root: Path) -> Iterator[StoreWriter]:
    with StoreWriter(root, durable=True) as opened:
        yield opened


def begin(writer: StoreWriter, *, rows: int = 8) -> ShardWriter:
    """A shard of which the first ``rows`` rows are written."""
    shard = writer.shard(next(writer.claimed())).__enter__()
    shard.write(list(features(PLAN, "train")[:, :rows]), np.ones(rows, np.uint8))
    return shard


def end(shard: ShardWriter) -> None:
    shard.__exit__(None, None, None)


def test_an_interrupted_shard_is_as_if_never_begun(root: Path, writer: StoreWriter) -> None:
    before = tree(root)
    shard = begin(writer, rows=4)
    assert shard.written == 4
    assert any((root / layout.TMP_FOLDER).iterdir())
    shard.__exit__(KeyboardInterrupt, None, None)
    assert tree(root) == before


def test_a_shard_that_lacks_rows_is_not_committed(root: Path, writer: StoreWriter) -> None:
    before = tree(root)
    shard = begin(writer, rows=7)
    with pytest.raises(AssertionError):
        end(shard)
    assert tree(root) == before


def test_skipped_rows_keep_their_reason_in_the_commit_record(root: Path) -> None:
    status = np.ones(8, np.uint8)
    status[5] = 3
    with StoreWriter(root, durable=False) as writer:
        for task in writer.claimed():
            with writer.shard(task) as shard:
                shard.skip(5, "train/002", 3, "cut short")
                shard.write(list(features(PLAN, "train")), status)
        writer.seal()
    commit = files.read_json(root / COMMIT)
    assert commit["ok"] == 7
    assert commit["skipped"] == [{"row": 5, "key": "train/002", "code": 3, "message": "cut short"}]
    assert open_store(root).split("train").status.tolist() == status.tolist()
    assert open_store(root).sealed["splits"]["train"]["ok"] == 7


def test_a_failed_write_ends_every_other_write_before_files_are_closed(
    writer: StoreWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []

    def write_all(handle: int, data: memoryview) -> None:
        if not ended:
            ended.append("failed")
            raise OSError(28, "No space left on device")
        time.sleep(0.2)
        os.fstat(handle)
        ended.append("whole")

    shard = writer.shard(next(writer.claimed())).__enter__()
    monkeypatch.setattr(files, "write_all", write_all)
    with pytest.raises(ResourceError, match="no space left"):
        shard.write(list(features(PLAN, "train")), np.ones(8, np.uint8))
    shard.__exit__(ResourceError, None, None)
    assert ended == ["failed", "whole"]


@pytest.mark.parametrize(
    ("act", "below"),
    [
        ("write", layout.TMP_FOLDER),
        ("fsync", layout.TMP_FOLDER),
        ("close", layout.TMP_FOLDER),
        ("link", "tokens"),
        ("link", "check"),
        ("link", "status"),
        ("link", "commits"),
        ("sync_folder", "tokens"),
        ("create", layout.TMP_FOLDER),
    ],
)
def test_a_disk_that_fails_before_the_commit_leaves_no_commit(
    root: Path, writer: StoreWriter, monkeypatch: pytest.MonkeyPatch, act: str, below: str
) -> None:
    shard = begin(writer)
    monkeypatch.setattr(system, "current", failing(act, errno.EIO, below=below))
    with pytest.raises(ResourceError, match=r"s\.zarr: input/output error"):
        end(shard)
    assert not (root / COMMIT).exists()
    assert not any((root / layout.TMP_FOLDER).iterdir())
    assert not claim_path(root).exists()
    monkeypatch.undo()
    assert tree_after(root) == tree(small_store(root.with_name("t.zarr"), PLAN))


def tree_after(root: Path) -> dict[str, bytes]:
    """Every file of a store once the same command was run again."""
    fill_store(root, PLAN)
    return tree(root)


def test_a_commit_that_may_not_last_is_an_error(
    writer: StoreWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = begin(writer)
    monkeypatch.setattr(system, "current", failing("sync_folder", errno.EIO, below="commits"))
    with pytest.raises(ResourceError, match="input/output error"):
        end(shard)


def test_a_shard_that_cannot_be_begun_gives_its_claim_back(
    root: Path, writer: StoreWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = next(writer.claimed())
    monkeypatch.setattr(system, "current", failing("create", errno.ENOSPC))
    with pytest.raises(ResourceError, match="no space left on device; free space"):
        writer.shard(task).__enter__()
    assert not claim_path(root).exists()


def test_an_equal_leftover_is_kept_and_any_other_replaced(root: Path, writer: StoreWriter) -> None:
    whole = small_store(root.with_name("t.zarr"), PLAN)
    (root / TOKENS).write_bytes((whole / TOKENS).read_bytes())
    (root / CHECK).write_bytes(b"of an attempt that was killed")
    kept = (root / TOKENS).stat().st_ino
    end(begin(writer))
    assert (root / TOKENS).stat().st_ino == kept
    assert (root / CHECK).read_bytes() == (whole / CHECK).read_bytes()
    writer.seal()
    assert tree(root) == tree(whole)


def fenced(root: Path) -> None:
    """Another host takes the shard over, and removes what the owner has not published yet."""
    claim_path(root).unlink()
    foreign_claim(root)
    for leftover in (root / layout.TMP_FOLDER).iterdir():
        leftover.unlink()


def committed(root: Path) -> None:
    """Another host has taken the shard over and committed it."""
    fenced(root)
    (root / COMMIT).write_bytes(b"theirs")


def robbed(root: Path) -> None:
    """Another host has taken the shard over, and begins."""
    claim_path(root).unlink()
    foreign_claim(root)


@pytest.mark.parametrize("takeover", [fenced, committed, robbed])
def test_a_commit_that_comes_after_the_takeover_changes_nothing_and_warns(
    root: Path,
    writer: StoreWriter,
    caplog: pytest.LogCaptureFixture,
    takeover: Callable[[Path], None],
) -> None:
    shard = begin(writer)
    (root / TOKENS).write_bytes(b"what the other one has published")
    takeover(root)
    before = {name: data for name, data in tree(root).items() if not name.startswith(".losa/tmp")}
    end(shard)
    after = tree(root)
    assert {name: after[name] for name in before} == before
    assert (root / COMMIT).exists() == (takeover is committed)
    assert caplog.messages == ["shard 0 of train was taken over by another process"]
    assert not any((root / layout.TMP_FOLDER).iterdir())


def test_a_claim_lost_just_before_the_commit_leaves_no_commit(
    root: Path, writer: StoreWriter, caplog: pytest.LogCaptureFixture
) -> None:
    shard = begin(writer)
    real = files.settle

    def settle(temporary: Path, path: Path, **how: object) -> None:
        real(temporary, path, **how)  # type: ignore[arg-type]  # passed on as it comes
        if path.parent.name == "status":
            robbed(root)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "settle", settle)
        end(shard)
    assert not (root / COMMIT).exists()
    assert caplog.messages == ["shard 0 of train was taken over by another process"]


def test_somebody_who_seals_meanwhile_makes_a_late_shard_superfluous(
    root: Path, writer: StoreWriter, caplog: pytest.LogCaptureFixture
) -> None:
    whole = small_store(root.with_name("t.zarr"), PLAN)
    shard = begin(writer)
    for name, data in tree(whole).items():
        (root / name).write_bytes(data)
    for leftover in [*(root / layout.TMP_FOLDER).iterdir(), claim_path(root)]:
        leftover.unlink()
    end(shard)
    assert tree(root) == tree(whole)
    assert caplog.messages == ["shard 0 of train was taken over by another process"]


@pytest.mark.parametrize("durable", [True, False])
def test_the_disk_begins_with_every_byte_once_while_rows_still_come(
    root: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    class Watched(System):
        def begin_sync(self, handle: int, offset: int, count: int) -> None:
            begun.setdefault(handle, []).append((offset, count))
            super().begin_sync(handle, offset, count)

    begun: dict[int, list[tuple[int, int]]] = {}
    monkeypatch.setattr(system, "current", Watched())
    monkeypatch.setattr(shardwriter, "WRITE_BEHIND_BYTES", 2 * 60)
    with StoreWriter(root, durable=durable) as writer:
        shard = writer.shard(next(writer.claimed())).__enter__()
        for row in range(8):
            shard.write(list(features(PLAN, "train")[:, row : row + 1]), np.ones(1, np.uint8))
        end(shard)
    want = [(offset, 120) for offset in range(0, 480, 120)]
    assert list(begun.values()) == ([want, want] if durable else [])


def test_taps_that_are_there_already_are_not_written_again(root: Path, writer: StoreWriter) -> None:
    end(begin(writer))
    given = files.read_json(root / COMMIT)["objects"]
    first = {name: facts for name, facts in given.items() if "tap01" in name}
    (root / COMMIT).unlink()
    (root / TOKENS).unlink()
    shard = writer.shard(next(writer.claimed()))
    again = ShardWriter(replace(shard._place, given=first), TASK)
    assert again.taps == (3,)
    with again:
        again.write(list(features(PLAN, "train")[1:]), np.ones(8, np.uint8))
    assert files.read_json(root / COMMIT)["objects"] == given
    assert not (root / TOKENS).exists()
