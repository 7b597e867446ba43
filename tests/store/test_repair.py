"""Claims of losa.store.repair."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from losa.errors import LockedError, ResourceError, StoreError
from losa.features import StoreDtype
from losa.store import Plan, StoreWriter, files, layout, lock, open_store, system
from losa.store.listing import listing_digest
from losa.store.plan import SplitPlan
from losa.store.repair import Repair, repair_store
from losa.store.seal import seal_digest
from losa.store.system import System
from losa.store.verify import verify_store
from tests.store.build import fill_store, samples, small_plan, small_store, tree
from tests.store.systems import failing

Damage = Callable[[Path], None]
ACTS = ("create", "write", "fsync", "link", "rename", "mkdir", "unlink", "sync_folder")


class Killed(BaseException):
    """The process is gone: nothing of it runs any more, no clean-up either."""


class Mortal(System):
    """A system whose process dies at its n-th act."""

    def __init__(self, acts: int) -> None:
        self.left = acts
        for name in ACTS:
            setattr(self, name, self._counted(getattr(self, name)))

    def _counted(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise Killed
            return act(*arguments)

        return counted


class Hasty(System):
    """A system that syncs nothing: the bytes are the same, and the test is quick."""

    def fsync(self, handle: int) -> None:
        pass

    def sync_folder(self, path: Path) -> None:
        pass

    def sync_file(self, path: Path) -> None:
        pass


def tiny_plan(dtype: StoreDtype = "float16", *, splits: tuple[str, ...] = ("train",)) -> Plan:
    """Two shards of four and two rows, whose listing's digest is the true one."""
    plan = small_plan(dict.fromkeys(splits, 6), dtype, shard_rows=4)
    listed = samples(plan)
    real = {name: SplitPlan(6, 6, listing_digest(listed[name])) for name in splits}
    return replace(plan, splits=real)


def kept(path: Path) -> dict[str, bytes]:
    """Every file of a store but those that were set aside."""
    everything = tree(path)
    return {name: everything[name] for name in everything if "/quarantine/" not in name}


def mend(path: Path, plan: Plan) -> Repair:
    """Repair a store, then extract what is missing."""
    done = repair_store(path, act=True)
    fill_store(path, plan)
    return done


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_store(tmp_path_factory.mktemp("repair") / "s.zarr", tiny_plan())


@pytest.fixture
def store(sealed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sealed, tmp_path / "s.zarr"))


def unseal(path: Path) -> None:
    (path / layout.SEALED_OBJECT).unlink()


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("dtype", "damage"),
    # Half of them by default, for the sake of time; the whole of F6 does more (tests/faults).
    [
        ("float16", Path.unlink),
        pytest.param("float16", cut, marks=pytest.mark.slow),
        pytest.param("int8", Path.unlink, marks=pytest.mark.slow),
        ("int8", flip),
    ],
)
def test_every_file_in_turn_is_named_and_restored_byte_for_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: StoreDtype, damage: Damage
) -> None:
    monkeypatch.setattr(system, "current", Hasty())
    plan = tiny_plan(dtype)
    path = small_store(tmp_path / "s.zarr", plan)
    before = tree(path)
    for name in before:
        damage(path / name)
        assert name in [problem.path for problem in verify_store(path)]
        mend(path, plan)
        assert kept(path) == before, name
    assert verify_store(path) == []


@pytest.mark.parametrize("damage", [Path.unlink, cut])
def test_every_file_of_an_unsealed_store_is_restored_too(
    store: Path, monkeypatch: pytest.MonkeyPatch, damage: Damage
) -> None:
    monkeypatch.setattr(system, "current", Hasty())
    before = tree(store)
    for name in [name for name in before if name != layout.SEALED_OBJECT]:
        unseal(store)
        damage(store / name)
        mend(store, tiny_plan())
        assert kept(store) == before, name


def test_two_files_that_changed_places_are_restored(store: Path) -> None:
    before = tree(store)
    for name in ("c.0.0.0", "c.1.0.0"):
        (store / f"train/tokens/tap01/{name}").rename(store / f"aside{name}")
    (store / "asidec.0.0.0").rename(store / "train/tokens/tap01/c.1.0.0")
    (store / "asidec.1.0.0").rename(store / "train/tokens/tap01/c.0.0.0")
    done = mend(store, tiny_plan())
    assert done.extract == (("train", 0), ("train", 1))
    assert kept(store) == before


def test_without_being_told_to_act_nothing_is_touched(store: Path) -> None:
    cut(store / "train/tokens/tap01/c.0.0.0")
    (store / "train/zarr.json").unlink()
    before = tree(store)
    planned = repair_store(store)
    assert tree(store) == before
    done = repair_store(store, act=True)
    assert [done.actions, done.extract] == [planned.actions, planned.extract]
    assert (planned.acted, done.acted) == (False, True)


def test_a_sound_store_needs_nothing(store: Path) -> None:
    before = tree(store)
    done = repair_store(store, act=True)
    assert done.to_json() == {
        "problems": 0,
        "actions": [],
        "extract": [],
        "old_id": open_store(store).store_id,
        "store_id": open_store(store).store_id,
        "changed_id": False,
    }
    assert tree(store) == before


def test_only_the_damaged_shard_is_extracted_again_and_its_good_files_stay(store: Path) -> None:
    cut(store / "train/tokens/tap01/c.0.0.0")
    flip(store / "train/check/tap03/c.0")
    good = [store / f"train/{name}" for name in ("tokens/tap03/c.0.0.0", "tokens/tap01/c.1.0.0")]
    before = [path.stat().st_ino for path in good]
    done = mend(store, tiny_plan())
    assert done.extract == (("train", 0),)
    assert done.store_id is None
    assert [path.stat().st_ino for path in good] == before
    aside = {name.partition("quarantine/")[2] for name in tree(store) if "/quarantine/" in name}
    assert aside == {
        "0001/train/tokens/tap01/c.0.0.0",
        "0001/train/check/tap03/c.0",
        "0001/.losa/commits/train/000000.json",
        "0001/.losa/sealed.json",
    }


def test_what_follows_from_other_files_is_mended_without_extracting(store: Path) -> None:
    before = tree(store)
    derived = ["zarr.json", "train/zarr.json", "train/sample/label/c.0", "train/check/tap01/c.0"]
    for name in [*derived, "train/sample/status/c.1", ".losa/spare/plan.json"]:
        flip(store / name)
    unseal(store)
    done = repair_store(store, act=True)
    assert done.extract == ()
    assert done.store_id == files.sha256(before[layout.SEALED_OBJECT])
    assert tree(store) == before


def test_strays_are_set_aside(store: Path, tmp_path: Path) -> None:
    before = tree(store)
    (store / "notes/deep").mkdir(parents=True)
    (store / "notes/deep/a.txt").write_text("a")
    (store / "train/b.txt").write_text("b")
    (store / "link").symlink_to(tmp_path)
    repair_store(store, act=True)
    assert kept(store) == before
    aside = store / ".losa/quarantine/0001"
    assert (aside / "notes/deep/a.txt").read_text() == "a"
    assert (aside / "link").is_symlink()
    (store / "c.txt").write_text("c")
    repair_store(store, act=True)
    assert (store / ".losa/quarantine/0002/c.txt").exists()


@pytest.mark.parametrize("name", ["train", "train/tokens/tap01", "calib", ".losa/samples"])
def test_a_link_in_place_of_a_folder_is_set_aside_and_what_lay_below_comes_back(
    store: Path, tmp_path: Path, name: str
) -> None:
    before = tree(store)
    (store / name).rename(tmp_path / "aside")
    (store / name).symlink_to(tmp_path / "aside")
    mend(store, tiny_plan())
    assert kept(store) == before
    assert verify_store(store) == []


def test_a_folder_in_place_of_a_file_is_set_aside(store: Path) -> None:
    before = tree(store)
    for name in ("train/zarr.json", "train/check/tap01/c.0", "train/tokens/tap03/c.0.0.0"):
        (store / name).unlink()
        (store / name).mkdir()
    mend(store, tiny_plan())
    assert kept(store) == before


def test_a_folder_in_place_of_a_derived_file_costs_no_extraction(store: Path) -> None:
    before = tree(store)
    (store / "train/zarr.json").unlink()
    (store / "train/zarr.json").mkdir()
    done = repair_store(store, act=True)
    assert (done.extract, done.to_json()["changed_id"]) == ((), False)
    assert kept(store) == before


def test_a_quarantine_that_is_no_folder_must_be_moved_by_hand(store: Path, tmp_path: Path) -> None:
    (store / layout.QUARANTINE_FOLDER).symlink_to(tmp_path)
    with pytest.raises(StoreError, match=r"\.losa/quarantine: is a symbolic link; move it"):
        repair_store(store, act=True)


@pytest.mark.parametrize("name", [layout.PLAN_OBJECT, layout.samples_object("train")])
def test_what_is_damaged_in_both_copies_is_refused_and_nothing_touched(
    store: Path, name: str
) -> None:
    for copy in (name, layout.spare_object(name)):
        cut(store / copy)
    cut(store / "train/tokens/tap01/c.0.0.0")
    before = tree(store)
    with pytest.raises(StoreError, match="is damaged, and so is its second copy"):
        repair_store(store, act=True)
    assert tree(store) == before
    assert {name, layout.spare_object(name)} <= {found.path for found in verify_store(store)}


def test_calibration_that_differs_from_its_copy_is_refused_without_a_seal(store: Path) -> None:
    unseal(store)
    flip(store / "calib/tap01/std/c.0")
    before = tree(store)
    with pytest.raises(StoreError, match=r"std/c\.0: differs .* nothing tells which is right"):
        repair_store(store, act=True)
    assert tree(store) == before


def test_shards_that_nobody_has_begun_are_no_damage(store: Path) -> None:
    unseal(store)
    (store / layout.commit_object("train", 1)).unlink()
    (problem,) = verify_store(store)
    assert problem.what == "is missing (1 of 2 shards are committed)"
    done = repair_store(store, act=True)
    assert (done.actions, done.extract, done.store_id) == ((), (("train", 1),), None)


def test_a_store_whose_metadata_come_out_otherwise_gets_another_id_and_says_so(
    store: Path,
) -> None:
    # As if a losa that writes its metadata in another way had sealed it.
    other = (store / "train/zarr.json").read_bytes() + b"\n"
    sealed = files.read_json(store / layout.SEALED_OBJECT)
    sealed["files"]["train/zarr.json"] = files.sha256(other)
    sealed["digest"] = seal_digest(sealed)
    (store / layout.SEALED_OBJECT).write_bytes(files.canonical_json(sealed))
    done = repair_store(store, act=True)
    assert done.to_json()["changed_id"] is True
    assert done.store_id == open_store(store).store_id != done.old_id
    assert verify_store(store) == []


def test_a_repair_killed_at_any_act_leaves_a_store_that_a_second_one_mends(
    sealed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, acts, is_killed = tree(sealed), 0, True
    while is_killed:
        path = Path(shutil.copytree(sealed, tmp_path / f"{acts}.zarr"))
        cut(path / "train/tokens/tap01/c.0.0.0")
        (path / "train/check/tap01/c.1").unlink()
        (path / layout.commit_object("train", 1)).rename(path / "train/stray")
        (path / "train/zarr.json").unlink()
        flip(path / ".losa/spare/plan.json")
        with monkeypatch.context() as patched:
            patched.setattr(system, "current", Mortal(acts))
            try:
                repair_store(path, act=True)
                is_killed = False
            except Killed:
                acts += 1
        mend(path, tiny_plan())
        assert kept(path) == before, acts
        shutil.rmtree(path)
    assert acts > 30


def test_a_failing_disk_is_a_resource_error(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (store / "train/stray").write_text("a")
    monkeypatch.setattr(system, "current", failing("rename", errno.EROFS))
    with pytest.raises(ResourceError, match="read-only file system"):
        repair_store(store, act=True)
    monkeypatch.undo()
    (store / "train/stray").unlink()
    (store / "train/zarr.json").unlink()
    monkeypatch.setattr(system, "current", failing("rename", errno.ENOSPC))
    with pytest.raises(ResourceError, match=r"train/zarr\.json: no space left"):
        repair_store(store, act=True)


def test_a_store_that_somebody_writes_is_not_mended(store: Path) -> None:
    unseal(store)
    with StoreWriter(store, durable=False), pytest.raises(LockedError):
        repair_store(store)
    with lock.alone(store), pytest.raises(LockedError):
        repair_store(store)


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        repair_store(tmp_path / "s.zarr")
