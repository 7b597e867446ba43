"""Claims of losa.store.extending: how an extension takes the place of its store."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from losa.errors import LockedError, MismatchError, ResourceError, StoreError
from losa.store import (
    Plan,
    SplitReader,
    files,
    layout,
    lock,
    open_store,
    system,
)
from losa.store.extending import (
    begun_extension,
    extension_of,
    finish_extension,
    finished_extension,
)
from losa.store.plan import SplitPlan
from losa.store.verify import verify_store
from tests.store import larger
from tests.store.build import (
    features,
    small_plan,
    small_store,
    statistics,
    tree,
)
from tests.store.larger import ROWS, Unsynced, begun, fill, names, narrow, small
from tests.store.systems import failing

pytestmark = pytest.mark.usefixtures("unsynced")


@pytest.fixture
def ready(old: Path, whole: Plan) -> Path:
    """The same, with its sealed extension beside it."""
    begun(old, whole)
    fill(extension_of(old), whole)
    return old


@pytest.fixture
def want(whole: Plan, tmp_path: Path) -> dict[str, bytes]:
    return tree(small(tmp_path / "one/s.zarr", whole))


def test_what_was_left_by_who_sealed_the_extension_and_died_goes(
    ready: Path, want: dict[str, bytes]
) -> None:
    (extension_of(ready) / layout.TMP_FOLDER / "4194305-1-x-0").write_bytes(
        b"the seal's first name"
    )
    finish_extension(ready)
    assert tree(ready) == want


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


def other_values(path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store of the same plan, whose features are others."""
    with monkeypatch.context() as patch:
        patch.setattr(larger, "features", lambda *args: -features(*args))
        small(path, plan)


def with_other_statistics(path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        halves = {name: values / 2 for name, values in statistics(small_plan(ROWS)).items()}
        patch.setattr(larger, "statistics", lambda _: halves)
        small(path, plan)


def on_another_device(path: Path, plan: Plan, _: pytest.MonkeyPatch) -> None:
    small(path, replace(plan, numerics=replace(plan.numerics, device="cuda")))


def with_other_exponents(path: Path, plan: Plan, _: pytest.MonkeyPatch) -> None:
    small(path, replace(plan, exponents=tuple(1 for _ in plan.exponents)))


REPLACED = {
    "000000.json": other_values,
    "mean/c.0": with_other_statistics,
    "plan.json": on_another_device,
    "plan.json ": with_other_exponents,
}


@pytest.mark.parametrize("name", REPLACED)
@pytest.mark.parametrize("taps", [(1,), (1, 3)])
@pytest.mark.parametrize("is_sealed", [True, False])
def test_the_extension_of_a_store_that_was_replaced_since_is_refused(
    old: Path,
    whole: Plan,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    taps: tuple[int, ...],
    is_sealed: bool,
) -> None:
    plan = narrow(whole, taps, ("train", "val"))
    begun(old, plan)
    if is_sealed:
        fill(extension_of(old), whole)
    shutil.rmtree(old)
    REPLACED[name](old, narrow(whole, (1,), ("train",)), monkeypatch)
    before = tree(old.parent)
    act = finish_extension if is_sealed else partial(begun_extension, wanted=plan)
    message = rf"s\.zarr\.extended: .*{name.strip()} differs"
    with pytest.raises(MismatchError, match=message) as caught:
        act(old)
    assert "remove" in str(caught.value)
    assert tree(old.parent) == before


def test_a_store_of_another_numerics_class_is_not_deleted_for_an_extension(
    ready: Path, whole: Plan
) -> None:
    shutil.rmtree(ready)
    on_another_device(ready, whole, pytest.MonkeyPatch())
    before = tree(ready.parent)
    with pytest.raises(MismatchError, match=r"plan\.json differs"):
        finish_extension(ready)
    assert tree(ready.parent) == before


def test_what_was_set_aside_of_the_store_says_nothing_against_its_extension(
    ready: Path, want: dict[str, bytes]
) -> None:
    (ready / layout.commit_object("train", 1)).unlink()
    finish_extension(ready)
    assert tree(ready) == want


@pytest.mark.parametrize("content", [b"{}", b'{"objects":[]}'])
def test_a_damaged_record_of_an_extension_is_not_the_stores(
    old: Path, whole: Plan, content: bytes
) -> None:
    begun(old, whole)
    name = layout.inherited_object("train", 1)
    (extension_of(old) / name).unlink()
    (extension_of(old) / name).write_bytes(content)
    with pytest.raises(MismatchError, match=r"000001\.json differs"):
        begun_extension(old, whole)


def test_an_extension_that_has_taken_its_place_is_found_there(ready: Path, whole: Plan) -> None:
    assert finished_extension(ready, whole) is None
    finish_extension(ready)
    found = finished_extension(ready, whole)
    assert found is not None
    assert found.plan == whole
    more = {**whole.splits, "test": SplitPlan(16, 16, "2" * 64)}
    assert finished_extension(ready, replace(whole, splits=more)) is None
    shutil.rmtree(ready)
    assert finished_extension(ready, whole) is None


def test_what_a_dead_process_was_deleting_is_deleted(old: Path) -> None:
    doomed = old.with_name(f".s.zarr.1-1-{files.process_space()}-0")
    doomed.mkdir()
    (doomed / "half").write_bytes(b"a store")
    finish_extension(old)
    assert names(old.parent) == ["s.zarr"]
