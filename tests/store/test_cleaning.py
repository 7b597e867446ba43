"""Claims of losa.store.cleaning."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from losa.errors import LockedError, ResourceError, StoreError
from losa.store import StoreWriter, files, layout, system
from losa.store.claims import ShardTask
from losa.store.cleaning import clean_store
from tests.store.build import begin_store, fill_store, small_plan, small_store, tree
from tests.store.elsewhere import claim_path, foreign_claim, here
from tests.store.rezarr import recompressed
from tests.store.systems import failing

NOW = 1_000_000_000.0
DAY = 86_400.0


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return small_store(tmp_path / "s.zarr")


def dead_tag() -> str:
    """The name that a process of this machine, which is gone, gave its temporaries."""
    return f"{2**22 + 1}-1-{files.process_space()}-0"


def removed(path: Path, days: float = 7.0) -> list[str]:
    """What cleaning takes away; beforehand it must have said so."""
    listed = clean_store(path, older_than_days=days, now=NOW)
    done = clean_store(path, older_than_days=days, act=True, now=NOW)
    assert listed.removed == done.removed
    return [leftover.path for leftover in done.removed]


def test_a_store_without_leftovers_stays_as_it_is(store: Path) -> None:
    before = tree(store)
    assert removed(store) == []
    assert tree(store) == before


def test_temporaries_of_dead_processes_go_and_those_of_others_stay(store: Path) -> None:
    scratch = store / layout.TMP_FOLDER
    other = scratch / "7-1-anotherspace-0"
    for path in (scratch / dead_tag(), scratch / files.owner_tag(), other):
        path.write_bytes(b"half")
    assert removed(store) == [f"{layout.TMP_FOLDER}/{dead_tag()}"]
    assert other.exists()


def test_what_zarr_left_half_written_goes(store: Path) -> None:
    before = tree(store)
    (store / "train/tokens/tap01/c.0.0.0.0f1e.partial").write_bytes(b"half")
    aside = store / layout.QUARANTINE_FOLDER / "0001"
    aside.mkdir(parents=True)
    (aside / "x.partial").write_bytes(b"kept until it is old")
    os.utime(aside, (NOW, NOW))
    assert removed(store) == ["train/tokens/tap01/c.0.0.0.0f1e.partial"]
    (aside / "x.partial").unlink()
    assert tree(store) == before


def test_claims_of_the_dead_go_and_those_that_may_live_stay(tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    begin_store(store, small_plan())
    dead, alive, foreign = (ShardTask("train", shard, 0, 0) for shard in range(3))
    foreign_claim(store)  # of shard 0: see below
    claim_path(store).rename(claim_path(store, foreign))
    for task, pid in ((dead, 2**22 + 1), (alive, os.getpid())):
        claim_path(store, task).write_bytes(files.canonical_json(here(pid=pid)))
    odd = claim_path(store, dead).with_name("odd")
    odd.write_text("")
    assert removed(store) == [layout.claim_object("train", 0)]
    assert [claim_path(store, task).exists() for task in (alive, foreign)] == [True, True]
    assert odd.exists()


def test_the_quarantine_goes_when_it_is_old(store: Path) -> None:
    before = tree(store)
    for name, age in (("0001", 8), ("0002", 6)):
        aside = store / layout.QUARANTINE_FOLDER / name
        (aside / "train").mkdir(parents=True)
        (aside / "train/x").write_bytes(b"12345")
        os.utime(aside, (NOW - age * DAY, NOW - age * DAY))
    done = clean_store(store, act=True, now=NOW)
    assert done.to_json() == {
        "removed": [{"path": ".losa/quarantine/0001", "bytes": 5, "why": "was set aside long ago"}],
        "bytes": 5,
    }
    assert removed(store, 5.0) == [".losa/quarantine/0002"]
    assert tree(store) == before


def test_what_was_set_aside_stays_while_the_store_may_need_it(store: Path, tmp_path: Path) -> None:
    foreign = recompressed(store, tmp_path / "f.zarr", only="train/tokens")
    damaged = Path(shutil.copytree(store, tmp_path / "d.zarr"))
    (damaged / "train/tokens/tap01/c.0.0.0").unlink()
    unsealed = Path(shutil.copytree(store, tmp_path / "u.zarr"))
    (unsealed / layout.SEALED_OBJECT).unlink()
    for path in (foreign, damaged, unsealed, store):
        (path / layout.QUARANTINE_FOLDER / "0001").mkdir(parents=True)
        (path / "a.partial").write_text("no damage: it goes as well")
    kept = ["a.partial"]
    assert [removed(path, -1e6) for path in (foreign, damaged, unsealed)] == [kept] * 3
    assert removed(store, -1e6) == [".losa/quarantine/0001", "a.partial"]


def test_a_store_without_a_plan_is_none(store: Path) -> None:
    shutil.rmtree(store / ".losa")
    with pytest.raises(StoreError, match="plan"):
        clean_store(store)


def test_by_the_clock_what_was_just_set_aside_stays(store: Path) -> None:
    (store / layout.QUARANTINE_FOLDER / "0001").mkdir(parents=True)
    assert clean_store(store).removed == ()
    assert len(clean_store(store, older_than_days=-1.0).removed) == 1


def test_stores_in_the_making_of_dead_creators_go(store: Path) -> None:
    beside = store.parent
    for name in (dead_tag(), files.owner_tag(), "other"):
        (beside / f".s.zarr.{name}").mkdir()
        (beside / f".s.zarr.{name}/plan.json").write_text("abc")
    (beside / f"s.zarr.{dead_tag()}").mkdir()
    assert removed(store) == [f"../.s.zarr.{dead_tag()}"]
    assert len(list(beside.iterdir())) == 4


def test_what_an_overwrite_replaced_goes_once_the_new_store_is_sealed(tmp_path: Path) -> None:
    store, plan = tmp_path / "s.zarr", small_plan()
    small_store(tmp_path / ".s.zarr.old", plan)
    begin_store(store, plan)
    assert removed(store) == []
    fill_store(store, plan)
    seal = (store / layout.SEALED_OBJECT).read_bytes()
    (store / layout.SEALED_OBJECT).write_bytes(seal[:-9])
    assert removed(store) == []
    (store / layout.SEALED_OBJECT).write_bytes(seal)
    assert removed(store) == ["../.s.zarr.old"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.zarr"]


def test_a_link_of_such_a_name_is_removed_and_not_followed(store: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (store.parent / f".s.zarr.{dead_tag()}").symlink_to(kept)
    shutil.rmtree(store / layout.TMP_FOLDER)
    (store / layout.TMP_FOLDER).symlink_to(kept)
    (kept / dead_tag()).write_text("not ours")
    assert removed(store) == [f"../.s.zarr.{dead_tag()}"]
    assert (kept / dead_tag()).exists()


def test_a_cleaned_store_is_finished_as_ever(tmp_path: Path) -> None:
    store, plan = tmp_path / "s.zarr", small_plan()
    begin_store(store, plan)
    (store / layout.TMP_FOLDER / dead_tag()).write_bytes(b"half")
    removed(store)
    fill_store(store, plan)
    assert tree(store) == tree(small_store(tmp_path / "t.zarr"))


def test_a_store_that_somebody_writes_is_not_cleaned(store: Path) -> None:
    with StoreWriter(store, durable=False), pytest.raises(LockedError):
        clean_store(store)


def test_a_failing_disk_and_a_missing_store_are_named(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        clean_store(store.with_name("t.zarr"))
    (store / layout.TMP_FOLDER / dead_tag()).write_bytes(b"half")
    monkeypatch.setattr(system, "current", failing("unlink", errno.EROFS))
    with pytest.raises(ResourceError, match="read-only file system"):
        clean_store(store, act=True)
