"""Claims of losa.store.seal."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from losa.errors import StoreError
from losa.store import StoreWriter, files, layout
from losa.store.damage import shard_objects
from losa.store.seal import small_objects
from tests.store.build import fill_store, small_plan, small_store, tree


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
