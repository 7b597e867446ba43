"""Claims of losa.store.writer: what it makes of what it finds, however that came about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from losa.errors import LockedError, StoreError
from losa.store import StoreWriter, files, layout
from losa.store.claims import ShardTask
from losa.store.plan import Numerics
from losa.store.verify import verify_store
from tests.store.build import begin_store, features, fill_store, small_plan, small_store, tree


def test_a_writer_whose_store_was_put_aside_writes_into_no_other(tmp_path: Path) -> None:
    plan, path = small_plan(), tmp_path / "s.zarr"
    begin_store(path, plan)
    with StoreWriter(path, durable=False) as writer:
        tasks = writer.claimed()
        task = next(tasks)
        shard = writer.shard(task).__enter__()
        shard.write(list(features(plan, "train")[:, :8]), np.ones(8, np.uint8))
        path.rename(tmp_path / "aside.zarr")
        begin_store(path, plan)
        before = tree(path)
        shard.__exit__(None, None, None)
        with pytest.raises(LockedError, match="is not the store any more"):
            next(tasks)
        assert tree(path) == before


def test_shards_of_another_numerics_class_say_so_in_their_commit_record(tmp_path: Path) -> None:
    plan, path = small_plan({"train": 16}), tmp_path / "s.zarr"
    begin_store(path, plan)
    other = Numerics("cuda", "bfloat16", 4)
    for numerics in (plan.numerics, other):
        with StoreWriter(path, durable=False, numerics=numerics) as writer:
            task = next(writer.claimed())
            with writer.shard(task) as shard:
                planes = features(plan, "train")[:, task.first : task.stop]
                shard.write(list(planes), np.ones(task.rows, np.uint8))
    found = [files.read_json(path / layout.commit_object("train", shard)) for shard in (0, 1)]
    assert "numerics" not in found[0]
    assert found[1]["numerics"] == other.to_json()
    fill_store(path, plan)
    assert verify_store(path) == []


def test_a_note_of_two_boots_makes_everybody_look_at_contents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, path = small_plan(), tmp_path / "s.zarr"
    begin_store(path, plan)
    for boot, shard in (("a" * 32, 0), ("b" * 32, 1)):
        monkeypatch.setattr(files, "boot_id", lambda boot=boot: boot)
        with StoreWriter(path, durable=False) as writer:
            task = next(writer.claimed())
            assert task.shard == shard
            with writer.shard(task) as open_shard:
                planes = features(plan, "train")[:, task.first : task.stop]
                open_shard.write(list(planes), np.ones(task.rows, np.uint8))
    tokens = path / layout.tokens_object("train", 3, 1)
    tokens.write_bytes(bytes(tokens.stat().st_size))
    monkeypatch.setattr(files, "boot_id", lambda: "a" * 32)
    with StoreWriter(path, durable=False) as writer:
        writer.withdraw_damaged()
        assert [task.shard for task in writer.tasks() if task.split == "train"] == [1, 2]


def test_a_sealed_store_that_lacks_a_file_is_no_finished_one(tmp_path: Path) -> None:
    path = small_store(tmp_path / "s.zarr")
    with StoreWriter(path) as writer:
        writer.check_whole()
        (path / layout.tokens_object("val", 1, 0)).unlink()
        with pytest.raises(StoreError, match=r"val/tokens/tap01/c\.0\.0\.0 is missing"):
            writer.check_whole()


@pytest.mark.parametrize("damage", ["gone", "cut", "no record"])
def test_what_an_extension_was_given_and_lacks_is_computed_again(
    tmp_path: Path, damage: str
) -> None:
    plan, path = small_plan(), tmp_path / "s.zarr"
    begin_store(path, plan)
    source = small_store(tmp_path / "t.zarr", plan)
    record = files.read_json(source / layout.commit_object("train", 0))
    task = ShardTask("train", 0, 0, 8)
    inherited = path / layout.inherited_object("train", 0)
    inherited.parent.mkdir(parents=True)
    name = layout.tokens_object("train", 1, 0)
    for item in (name, layout.check_object("train", 1, 0)):
        (path / item).write_bytes((source / item).read_bytes())
    inherited.write_bytes(files.canonical_json(record))
    with StoreWriter(path, durable=False) as writer:
        assert writer.missing_taps(task) == (3,)
        if damage == "no record":
            inherited.write_bytes(b"{}")
        elif damage == "cut":
            (path / name).write_bytes(b"cut")
        else:
            (path / name).unlink()
        assert writer.missing_taps(task) == (1, 3)


def test_a_commit_record_that_names_what_no_file_can_be_called_is_withdrawn(
    tmp_path: Path,
) -> None:
    plan, path = small_plan(), tmp_path / "s.zarr"
    begin_store(path, plan)
    for shard, record in ((0, {"objects": {"a\0b": {"bytes": 1}}}), (1, {"objects": {}})):
        (path / layout.commit_object("train", shard)).write_bytes(files.canonical_json(record))
    (path / layout.commit_object("train", 2)).write_bytes(b"no record")
    with StoreWriter(path, durable=False) as writer:
        writer.withdraw_damaged()
        assert len(writer.tasks()) == 4


def test_a_store_that_is_gone_is_not_the_one_that_was_begun(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    begin_store(path, small_plan())
    with StoreWriter(path) as writer:
        path.rename(tmp_path / "gone.zarr")
        with pytest.raises(LockedError, match="is not the store any more"):
            writer._claims.check_store()
        (tmp_path / "gone.zarr").rename(path)
