"""Claims of losa.store.extending."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from losa.errors import LockedError, MismatchError, ResourceError, StoreError
from losa.features import StoreDtype
from losa.store import (
    Plan,
    SplitReader,
    StoreWriter,
    create_store,
    extending,
    files,
    layout,
    lock,
    open_store,
    system,
)
from losa.store.extending import (
    begin_extension,
    begun_extension,
    extension_of,
    finish_extension,
)
from losa.store.plan import SplitPlan
from losa.store.verify import verify_store
from tests.store.build import (
    features,
    samples,
    small_plan,
    small_store,
    statistics,
    token_scales,
    tree,
)
from tests.store.systems import NoLinks, failing

ROWS = {"train": 20, "val": 8}


def narrow(plan: Plan, taps: tuple[int, ...], splits: tuple[str, ...]) -> Plan:
    """A plan at fewer taps and splits."""
    return replace(plan.with_taps(taps), splits={name: plan.splits[name] for name in splits})


def fill(path: Path, plan: Plan, *, shards: int = 10**6, skipped: tuple[int, ...] = ()) -> None:
    """Write the missing taps of missing shards, their values those of the whole plan's oracle."""
    with StoreWriter(path, durable=False) as writer:
        for number, task in enumerate(writer.claimed()):
            if number == shards:
                return
            taps = [plan.spec.taps.index(tap) for tap in writer.missing_taps(task)]
            rows = slice(task.first, task.stop)
            planes, scales = features(plan, task.split), token_scales(plan, task.split)
            status = np.ones(task.rows, np.uint8)
            with writer.shard(task) as shard:
                for row in skipped:
                    if task.split == "train" and task.first <= row < task.stop:
                        status[row - task.first] = 2
                        shard.skip(row, f"train/{row:03d}", 2, "is missing")
                shard.write(
                    [planes[tap, rows] for tap in taps],
                    status,
                    None if scales is None else [scales[tap, rows] for tap in taps],
                )
        writer.seal()


def begun(path: Path, plan: Plan) -> None:
    """Create the empty store of a part of the whole plan, with that part of its statistics."""
    whole = small_plan(ROWS, plan.spec.dtype)
    taps = [whole.spec.taps.index(tap) for tap in plan.spec.taps]
    arrays = {name: values[taps] for name, values in statistics(whole).items()}
    listed = {name: samples(whole)[name] for name in plan.splits}
    if path.exists():
        begin_extension(path, plan, listed, arrays, durable=False)
    else:
        create_store(path, plan, listed, arrays, durable=False)


def small(path: Path, plan: Plan, *, skipped: tuple[int, ...] = ()) -> Path:
    """A sealed store of a part of the whole plan."""
    begun(path, plan)
    fill(path, small_plan(ROWS, plan.spec.dtype), skipped=skipped)
    return path


class Unsynced(system.System):
    """Leaves out what makes tests slow on a disk."""

    def sync_folder(self, path: Path) -> None:
        assert path.is_dir()

    def sync_file(self, path: Path) -> None:
        assert path.is_file()


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "current", Unsynced())


@pytest.fixture
def whole() -> Plan:
    return small_plan(ROWS)


@pytest.fixture
def old(whole: Plan, tmp_path: Path) -> Path:
    """A sealed store of tap 1 and the split train."""
    return small(tmp_path / "s.zarr", narrow(whole, (1,), ("train",)))


@pytest.fixture
def ready(old: Path, whole: Plan) -> Path:
    """The same, with its sealed extension beside it."""
    begun(old, whole)
    fill(extension_of(old), whole)
    return old


@pytest.fixture
def want(whole: Plan, tmp_path: Path) -> dict[str, bytes]:
    return tree(small(tmp_path / "one/s.zarr", whole))


def names(folder: Path) -> list[str]:
    """What lies in a folder, but for other tests' stores."""
    return sorted(entry.name for entry in folder.iterdir() if entry.name != "one")


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize(
    ("taps", "splits"),
    [((1,), ("train",)), ((3,), ("train", "val")), ((1, 3), ("train",)), ((3,), ("val",))],
)
@pytest.mark.parametrize("links", [True, False])
def test_an_extended_store_equals_one_written_in_one_go(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dtype: StoreDtype,
    taps: tuple[int, ...],
    splits: tuple[str, ...],
    links: bool,
) -> None:
    plan = small_plan(ROWS, dtype)
    path = small(tmp_path / "s.zarr", narrow(plan, taps, splits), skipped=(3, 9))
    if not links:
        monkeypatch.setattr(Unsynced, "link", NoLinks.link)
    begun(path, plan)
    fill(extension_of(path), plan, skipped=() if "train" in splits and taps == (1, 3) else (3, 9))
    finish_extension(path)
    assert tree(path) == tree(small(tmp_path / "one/s.zarr", plan, skipped=(3, 9)))
    assert verify_store(path) == []
    assert names(tmp_path) == ["s.zarr"]


def test_shards_that_get_no_more_taps_are_complete_from_the_start(old: Path, whole: Plan) -> None:
    begun(old, narrow(whole, (1,), ("train", "val")))
    with StoreWriter(extension_of(old), durable=False) as writer:
        assert {task.split for task in writer.tasks()} == {"val"}


def test_shards_that_get_more_taps_lack_only_these(old: Path, whole: Plan) -> None:
    begun(old, whole)
    with StoreWriter(extension_of(old), durable=False) as writer:
        missing = {task.split: writer.missing_taps(task) for task in writer.tasks()}
    assert missing == {"train": (3,), "val": (1, 3)}


def test_the_old_store_can_be_read_until_the_end(ready: Path, want: dict[str, bytes]) -> None:
    before = tree(ready)
    assert verify_store(ready) == []
    finish_extension(ready)
    assert tree(ready) == want != before


def read(reader: SplitReader) -> np.ndarray:
    """Every row of a split at tap 1."""
    out = np.empty((1, reader.rows, 5, 6), np.float16)
    reader.read_into(np.arange(reader.rows), (1,), out)
    return out.reshape(reader.rows, 5, 6)


def test_a_reader_from_before_reads_what_it_has_met_and_never_anything_else(
    ready: Path, whole: Plan
) -> None:
    touched, other = open_store(ready).split("train"), open_store(ready).split("train")
    read(touched)
    finish_extension(ready)
    np.testing.assert_array_equal(read(touched), features(whole, "train")[0])
    with pytest.raises(StoreError, match="is not the file that was sealed"):
        read(other)


def test_a_reader_from_before_does_not_notice_a_new_split(old: Path, whole: Plan) -> None:
    reader, plan = open_store(old).split("train"), narrow(whole, (1,), ("train", "val"))
    begun(old, plan)
    fill(extension_of(old), whole)
    finish_extension(old)
    np.testing.assert_array_equal(read(reader), features(whole, "train")[0])


def as_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "is missing"),
    "cut": (lambda path: os.truncate(path, 7), "is 7 bytes, not 612"),
    "a link": (as_link, "is not a regular file"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_store_is_not_extended(old: Path, whole: Plan, kind: str) -> None:
    act, message = DAMAGE[kind]
    act(old / "train/tokens/tap01/c.1.0.0")
    with pytest.raises(StoreError, match=rf"tap01/c\.1\.0\.0: .*{message}.*repair"):
        begun(old, whole)
    assert names(old.parent) == ["s.zarr"]


def test_a_damaged_commit_record_is_not_handed_on(old: Path, whole: Plan) -> None:
    (old / layout.commit_object("train", 1)).write_bytes(b"{}")
    with pytest.raises(StoreError, match=r"000001\.json: is not the file that was sealed"):
        begun(old, whole)


def test_no_room_for_copies_is_said_before_the_first(
    old: Path, whole: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, plan: Plan) -> None:
        assert plan.spec.taps == (1,)
        raise ResourceError(path, "too little")

    monkeypatch.setattr(Unsynced, "link", NoLinks.link)
    monkeypatch.setattr(extending, "check_space", full)
    with pytest.raises(ResourceError, match="too little"):
        begun(old, whole)
    assert names(old.parent) == ["s.zarr"]


def test_copying_is_told_once(
    old: Path, whole: Plan, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Unsynced, "link", NoLinks.link)
    with caplog.at_level(logging.WARNING, logger=extending.__name__):
        begun(old, whole)
    assert caplog.text.count("no hard links here") == 1


def test_a_failing_disk_is_named_while_files_are_shared(
    old: Path, whole: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "current", failing("link", errno.EIO))
    with pytest.raises(ResourceError, match="input/output error") as caught:
        begun(old, whole)
    assert str(extension_of(old)) in str(caught.value)
    assert names(old.parent) == ["s.zarr"]


def test_an_extension_is_begun_once_and_found_again(old: Path, whole: Plan) -> None:
    assert begun_extension(old, whole) is None
    begun(old, whole)
    found = begun_extension(old, replace(whole, exponents=()))
    assert found == whole
    with pytest.raises(LockedError, match="created by another process"):
        begun(old, whole)
    with pytest.raises(
        MismatchError, match=r"another extension .*features\.taps: \[1\] / \[1, 3\]"
    ):
        begun_extension(old, narrow(whole, (1,), ("train", "val")))


def test_nothing_is_swapped_before_it_is_sealed(old: Path, whole: Plan) -> None:
    before = tree(old)
    finish_extension(old)
    begun(old, whole)
    fill(extension_of(old), whole, shards=2)
    finish_extension(old)
    assert tree(old) == before
    assert names(old.parent) == [".s.zarr.extended", "s.zarr"]


class StopError(Exception):
    """Stands for a kill."""


class NoExchange(Unsynced):
    """A file system that cannot exchange two names."""

    def exchange(self, *_: Path) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def stops_at(count: int, base: system.System, parent: Path) -> system.System:
    """A system that is killed at one of its acts beside the store."""
    left = [count]

    def stopping(act: str) -> Callable[..., None]:
        real: Callable[..., None] = getattr(base, act)

        def tick(*paths: Path) -> None:
            if paths[0].parent == parent or paths[0] == parent:
                if not left[0]:
                    raise StopError
                left[0] -= 1
            real(*paths)

        return tick

    for act in ("rename", "exchange", "sync_folder"):
        setattr(base, act, stopping(act))
    return base


@pytest.mark.parametrize("base", [Unsynced, NoExchange])
def test_a_swap_that_stops_anywhere_is_finished_by_the_next(
    ready: Path, want: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, base: type[system.System]
) -> None:
    before, spare = tree(ready), ready.parent / "one/spare"
    shutil.copytree(ready, spare / "s.zarr")
    shutil.copytree(extension_of(ready), spare / ".s.zarr.extended")
    for count in range(100):
        with monkeypatch.context() as patch:
            patch.setattr(system, "current", stops_at(count, base(), ready.parent))
            try:
                finish_extension(ready)
            except StopError:
                assert tree(ready) in (before, want, {})
                assert ready.exists() or base is NoExchange
            else:
                break
        finish_extension(ready)
        assert tree(ready) == want
        assert not any(name.startswith(".s.zarr.ext") for name in names(ready.parent))
        for entry in ready.parent.glob("*s.zarr*"):
            shutil.rmtree(entry)
        shutil.copytree(spare, ready.parent, dirs_exist_ok=True)
    assert count >= 5
    assert tree(ready) == want
    assert names(ready.parent) == ["s.zarr"]


def test_the_old_store_comes_back_when_there_is_nothing_sealed_to_take_its_place(
    old: Path, whole: Plan
) -> None:
    before = tree(old)
    begun(old, whole)
    old.rename(old.with_name(".s.zarr.extending"))
    finish_extension(old)
    assert tree(old) == before


def test_a_swap_makes_durable_what_it_puts_in_place_of_what_was(
    ready: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acts: list[tuple[str, Path]] = []

    class Noting(system.System):
        def sync_file(self, path: Path) -> None:
            acts.append(("sync", path))

        def exchange(self, first: Path, second: Path) -> None:
            acts.append(("exchange", first))
            super().exchange(first, second)

        def sync_folder(self, path: Path) -> None:
            acts.append(("folder", path))

    monkeypatch.setattr(system, "current", Noting())
    files_of = {extension_of(ready) / name for name in tree(extension_of(ready))}
    finish_extension(ready)
    swap = acts.index(("exchange", extension_of(ready)))
    assert {path for kind, path in acts[:swap] if kind == "sync"} == files_of
    assert acts[swap + 1] == ("folder", ready.parent)


def test_a_failing_exchange_is_an_error_and_no_reason_for_another_way(
    ready: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(ready)
    monkeypatch.setattr(system, "current", failing("exchange", errno.EIO))
    with pytest.raises(ResourceError, match="input/output error"):
        finish_extension(ready)
    assert tree(ready) == before


def test_a_store_that_somebody_writes_or_mends_is_not_swapped(ready: Path) -> None:
    for place in (ready, extension_of(ready)):
        with lock.shared(place), pytest.raises(LockedError):
            finish_extension(ready)


def test_what_is_no_extension_is_neither_swapped_in_nor_deleted(
    ready: Path, whole: Plan, tmp_path: Path
) -> None:
    shutil.rmtree(ready)
    other = {**whole.splits, "train": SplitPlan(16, 16, "2" * 64)}
    small_store(ready, replace(whole, splits=other))
    before = tree(tmp_path)
    with pytest.raises(MismatchError, match=r"\.s\.zarr\.extended: is no extension of s\.zarr"):
        finish_extension(ready)
    extension_of(ready).rename(tmp_path / ".s.zarr.extending")
    with pytest.raises(MismatchError, match=r"extending: was put aside .* another store now"):
        finish_extension(ready)
    assert tree(tmp_path / "s.zarr") == {
        name.removeprefix("s.zarr/"): data for name, data in before.items() if name[0] == "s"
    }


def test_what_a_dead_process_was_deleting_is_deleted(old: Path) -> None:
    doomed = old.with_name(f".s.zarr.1-1-{files.process_space()}-0")
    doomed.mkdir()
    (doomed / "half").write_bytes(b"a store")
    finish_extension(old)
    assert names(old.parent) == ["s.zarr"]
