"""Claims of losa.store.seal."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from losa.errors import ResourceError, StoreError
from losa.store import StoreWriter, files, layout, system
from losa.store.damage import shard_objects
from losa.store.seal import seal_digest, seal_store, small_objects
from losa.store.system import System
from tests.store.build import fill_store, small_plan, small_store, tree
from tests.store.systems import failing


def test_every_file_is_vouched_for_by_the_seal_or_by_a_commit_record(tmp_path: Path) -> None:
    plan = small_plan()
    path = small_store(tmp_path / "s.zarr", plan)
    known = {layout.SEALED_OBJECT, *small_objects(plan)}
    for split, item in plan.splits.items():
        for shard in range(layout.shard_count(item.rows, plan.shard_rows)):
            known |= set(shard_objects(plan, split, shard))
    assert known == set(tree(path))


def test_sealing_again_changes_nothing(tmp_path: Path) -> None:
    path = small_store(tmp_path / "s.zarr")
    before = tree(path)
    store_id = fill_store(path, small_plan())
    (path / layout.SEALED_OBJECT).unlink()
    assert fill_store(path, small_plan()) == store_id
    assert tree(path) == before


def test_leftovers_of_killed_writers_are_gone_after_sealing(tmp_path: Path) -> None:
    plan = small_plan()
    path = small_store(tmp_path / "s.zarr", plan)
    before = tree(path)
    (path / layout.SEALED_OBJECT).unlink()
    (path / layout.TMP_FOLDER / "1-1-feedbeef-0").write_bytes(b"half a shard")
    with StoreWriter(path, durable=False) as writer:
        writer.seal()
    assert tree(path) == before


def test_a_second_process_that_seals_meanwhile_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small_store(tmp_path / "s.zarr")
    before = tree(path)
    sealed = (path / layout.SEALED_OBJECT).read_bytes()
    (path / layout.SEALED_OBJECT).unlink()
    publish = files.publish

    def beaten(temporary: Path, final: Path, *, durable: bool) -> bool:
        # The other process sweeps the temporaries and seals just before us.
        temporary.unlink()
        final.write_bytes(sealed)
        return publish(temporary, final, durable=durable)

    monkeypatch.setattr(files, "publish", beaten)
    with StoreWriter(path, durable=False) as writer:
        assert writer.seal() == files.sha256(sealed)
    assert tree(path) == before


def test_a_shard_that_is_not_whole_is_not_sealed(tmp_path: Path) -> None:
    path = small_store(tmp_path / "s.zarr")
    (path / layout.SEALED_OBJECT).unlink()
    os.truncate(path / "train/tokens/tap01/c.0.0.0", 5)
    with (
        StoreWriter(path, durable=False) as writer,
        pytest.raises(StoreError, match=r"tap01/c\.0\.0\.0 is 5 bytes, not 612"),
    ):
        writer.seal()
    assert not (path / layout.SEALED_OBJECT).exists()


def test_processes_that_seal_at_once_agree(tmp_path: Path) -> None:
    path = small_store(tmp_path / "s.zarr")
    before = tree(path)
    plan = small_plan()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            (path / layout.SEALED_OBJECT).unlink()
            ids = set(pool.map(lambda _: seal_store(path, plan, durable=False), range(8)))
            assert ids == {files.sha256(before[layout.SEALED_OBJECT])}
    assert tree(path) == before


def test_another_seal_is_not_overwritten(tmp_path: Path) -> None:
    path = small_store(tmp_path / "s.zarr")
    (path / layout.SEALED_OBJECT).write_bytes(b"theirs")
    with pytest.raises(StoreError, match=r"sealed\.json: was written by another process"):
        seal_store(path, small_plan(), durable=False)
    assert (path / layout.SEALED_OBJECT).read_bytes() == b"theirs"


def test_the_seal_says_what_was_skipped_and_vouches_for_itself(tmp_path: Path) -> None:
    sealed = files.read_json(small_store(tmp_path / "s.zarr") / layout.SEALED_OBJECT)
    assert sealed["splits"]["val"] == {"rows": 8, "ok": 8, "shards": 1, "skipped": []}
    assert sealed["digest"] == seal_digest(sealed)
    assert seal_digest({**sealed, "plan": "another"}) != sealed["digest"]


class Watched(System):
    """Notes what was synced before the seal got its name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.synced: set[str] = set()
        self.before: set[str] = set()

    def sync_file(self, path: Path) -> None:
        self.synced.add(path.relative_to(self.root).as_posix())
        super().sync_file(path)

    def sync_folder(self, path: Path) -> None:
        self.synced.add(path.relative_to(self.root).as_posix())
        super().sync_folder(path)

    def link(self, source: Path, target: Path) -> None:
        if target.name == "sealed.json":
            self.before = set(self.synced)
        super().link(source, target)


@pytest.mark.parametrize("is_noted", [False, True])
def test_what_was_not_synced_before_is_synced_before_a_seal_that_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_noted: bool
) -> None:
    path = small_store(tmp_path / "s.zarr")
    before = tree(path)
    (path / layout.SEALED_OBJECT).unlink()
    if is_noted:
        (path / layout.UNSYNCED_OBJECT).write_text(files.boot_id())
    watched = Watched(path)
    monkeypatch.setattr(system, "current", watched)
    seal_store(path, small_plan(), durable=True)
    assert {".losa/commits/train", ".losa/claims/val", ".losa"} <= watched.before
    assert ("train/tokens/tap01/c.1.0.0" in watched.before) == is_noted
    assert tree(path) == before


@pytest.mark.parametrize(("act", "below"), [("unlink", "tmp"), ("sync_folder", "commits")])
def test_a_disk_that_fails_while_sealing_is_named_and_nothing_is_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str, below: str
) -> None:
    path = small_store(tmp_path / "s.zarr")
    (path / layout.SEALED_OBJECT).unlink()
    (path / layout.TMP_FOLDER / "1-1-feedbeef-0").write_bytes(b"half a shard")
    monkeypatch.setattr(system, "current", failing(act, errno.EIO, below=below))
    with pytest.raises(ResourceError, match="input/output error"):
        seal_store(path, small_plan(), durable=True)
    assert not (path / layout.SEALED_OBJECT).exists()
