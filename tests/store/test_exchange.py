"""Claims of losa.store.exchange: a store survives the way through a file."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from losa.errors import MismatchError, ResourceError, StoreError, UsageError
from losa.features import StoreDtype
from losa.store import StoreWriter, create_store, exchange, files, layout, open_store, system
from losa.store.exchange import export_store, import_store
from losa.store.h5store import open_h5
from losa.store.verify import verify_store
from tests.store.build import (
    features,
    fill_store,
    samples,
    small_plan,
    small_store,
    statistics,
    tree,
)
from tests.store.h5build import changed, holed_store, set_json

DTYPES = ["float16", "int8", "bfloat16", "float32"]


@pytest.fixture(name="store")
def fixture_store(tmp_path: Path) -> Path:
    return small_store(tmp_path / "s.zarr")


@pytest.fixture(name="file")
def fixture_file(store: Path, tmp_path: Path) -> Path:
    export_store(store, tmp_path / "a.h5")
    return tmp_path / "a.h5"


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_store_comes_back_byte_for_byte_skipped_rows_and_reasons_included(
    tmp_path: Path, dtype: StoreDtype
) -> None:
    store, back = holed_store(tmp_path / "s.zarr", small_plan(dtype=dtype)), tmp_path / "t.zarr"
    sent = export_store(store, tmp_path / "a.h5")
    got = import_store(tmp_path / "a.h5", back)
    assert tree(back) == tree(store)
    assert got["store_id"] == sent["store_id"] == open_store(store).store_id
    assert (sent["is_whole"], got["is_original"]) == (True, True)
    assert sent["splits"] == got["splits"] == {"train": 20, "val": 8}
    assert sent["bytes"] == (tmp_path / "a.h5").stat().st_size
    assert sent["taps"] == got["taps"] == [1, 3]


@pytest.mark.parametrize(("taps", "kept"), [("last", (3,)), ("1", (1,)), ("all", (1, 3))])
@pytest.mark.parametrize("splits", [["val"], ["val", "train"]])
def test_some_taps_and_splits_make_a_store_whose_plan_says_so(
    store: Path, tmp_path: Path, taps: str, kept: tuple[int, ...], splits: list[str]
) -> None:
    sent = export_store(store, tmp_path / "a.h5", taps=taps, splits=splits)
    got = import_store(tmp_path / "a.h5", tmp_path / "t.zarr")
    assert verify_store(tmp_path / "t.zarr") == []
    found = open_store(tmp_path / "t.zarr")
    assert found.spec.taps == kept
    assert found.splits == tuple(sorted(splits))
    assert got["is_original"] == sent["is_whole"] == (len(kept) == len(splits) == 2)
    plan = small_plan()
    for split in splits:
        out = np.zeros((len(kept), plan.splits[split].rows, 5, 6), "<f2")
        found.split(split).read_into(np.arange(out.shape[1]), kept, out)
        numbers = [plan.spec.taps.index(tap) for tap in kept]
        np.testing.assert_array_equal(out, features(plan, split)[numbers])
    np.testing.assert_array_equal(found.calibration(kept).mean, statistics(plan)["mean"][numbers])


def test_blocks_of_rows_do_not_change_a_byte(
    store: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "BLOCK_BYTES", 500)
    export_store(store, tmp_path / "b.h5")
    import_store(file, tmp_path / "t.zarr")
    assert (tmp_path / "b.h5").read_bytes() == file.read_bytes()
    assert tree(tmp_path / "t.zarr") == tree(store)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_progress_counts_every_byte_of_records(tmp_path: Path, dtype: StoreDtype) -> None:
    plan = small_plan(dtype=dtype)
    store = small_store(tmp_path / "s.zarr", plan)
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        told.append((done, total))

    export_store(store, tmp_path / "a.h5", progress=progress)
    total = 28 * plan.spec.sample_bytes
    assert told[-1] == (total, total)
    told.clear()
    import_store(tmp_path / "a.h5", tmp_path / "t.zarr", progress=progress)
    assert told[-1] == (total, total)
    assert told == sorted(told)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"taps": "2"}, "does not name taps"),
        ({"splits": ["test"]}, "'test' is not in the store"),
        ({"splits": []}, "names no split"),
    ],
)
def test_what_the_store_does_not_have_cannot_be_exported(
    store: Path, tmp_path: Path, options: dict[str, Any], what: str
) -> None:
    with pytest.raises(UsageError, match=what):
        export_store(store, tmp_path / "a.h5", **options)
    assert not (tmp_path / "a.h5").exists()


def test_a_file_is_replaced_only_when_that_is_asked_for(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.h5"
    out.write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        export_store(store, out)
    assert out.read_text() == "mine"
    export_store(store, out, overwrite=True)
    assert open_h5(out).store_id == open_store(store).store_id
    (tmp_path / "b.h5").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        export_store(store, tmp_path / "b.h5", overwrite=True)


@pytest.mark.parametrize("name", ["a", "a.hdf", "a.h5.zarr", ".h5"])
def test_a_file_that_would_not_be_known_by_its_name_is_not_written(
    store: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(UsageError, match=r"give a name that ends in \.h5 or \.hdf5"):
        export_store(store, tmp_path / name)
    assert names_in(tmp_path) == ["s.zarr"]


def test_a_file_in_the_store_itself_is_not_written(store: Path, tmp_path: Path) -> None:
    before = tree(store)
    (tmp_path / "link").symlink_to(store)
    for out in (store / "a.h5", tmp_path / "link/train/a.h5", store / "new/../a.h5"):
        with pytest.raises(UsageError, match="lies in the store itself"):
            export_store(store, out)
    assert tree(store) == before


def test_a_file_that_another_process_wrote_meanwhile_stays(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.h5"

    def progress(done: int, total: int) -> None:
        out.write_text(f"theirs at {done} of {total}")

    with pytest.raises(UsageError, match="was written by another process"):
        export_store(store, out, progress=progress)
    assert out.read_text().startswith("theirs")
    assert names_in(tmp_path) == ["a.h5", "s.zarr"]


def test_what_dead_exports_left_is_removed_and_folders_are_made(
    store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x" / "a.h5"
    export_store(store, out)
    dead = out.with_name(f".a.h5.4000000-1-{files.process_space()}-0")
    alive = out.with_name(f".a.h5.{files.owner_tag()}")
    for path in (dead, alive):
        path.write_text("half")
    export_store(store, out, overwrite=True)
    assert (dead.exists(), alive.exists()) == (False, True)


class Failing(system.System):
    """A disk on which the n-th write or sync fails."""

    def __init__(self, after: int, number: int) -> None:
        self.left = after
        self.number = number

    def _act(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(self.number, os.strerror(self.number))

    def write(self, handle: int, data: memoryview) -> int:
        self._act()
        return super().write(handle, data)

    def fsync(self, handle: int) -> None:
        self._act()
        super().fsync(handle)


@pytest.mark.parametrize("number", [errno.ENOSPC, pytest.param(errno.EIO, marks=pytest.mark.slow)])
def test_a_full_or_failing_disk_leaves_nothing_behind(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    out = tmp_path / "a.h5"
    failures, told = 0, set()
    while True:
        monkeypatch.setattr(system, "current", Failing(failures, number))
        try:
            export_store(store, out)
        except ResourceError as error:
            told.add(error.subject)
            failures += 1
            assert names_in(tmp_path) == ["s.zarr"]
        else:
            break
    assert failures > 10
    assert told == {str(out)}
    open_h5(out)


def test_a_disk_without_room_is_refused_before_anything_is_written(
    store: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = os.statvfs_result((4096, 4096, 9, 0, 0, 9, 9, 9, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    with pytest.raises(ResourceError, match=r"kB needed, 0\.0 kB free"):
        export_store(store, tmp_path / "b.h5")
    with pytest.raises(ResourceError, match=r"kB needed, 0\.0 kB free"):
        import_store(file, tmp_path / "t.zarr")
    assert names_in(tmp_path) == ["a.h5", "s.zarr"]


def test_damage_of_the_store_stops_an_export(store: Path, tmp_path: Path) -> None:
    shard = store / "val/tokens/tap03/c.0.0.0"
    data = bytearray(shard.read_bytes())
    data[70] ^= 1
    shard.write_bytes(data)
    with pytest.raises(StoreError) as caught:
        export_store(store, tmp_path / "a.h5")
    assert caught.value.subject == str(shard)
    assert names_in(tmp_path) == ["s.zarr"]


def test_damage_of_the_file_stops_an_import_which_a_sound_file_finishes(
    store: Path, file: Path, tmp_path: Path
) -> None:
    spoiled, back = tmp_path / "spoiled.h5", tmp_path / "t.zarr"
    with h5py.File(file) as found:
        place = found["val/tokens/tap03"].id.get_offset()
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    spoiled.write_bytes(data)
    with pytest.raises(StoreError, match="row 0 does not match its checksum"):
        import_store(spoiled, back)
    with pytest.raises(StoreError, match="not sealed"):
        open_store(back)
    assert import_store(file, back)["is_original"]
    assert tree(back) == tree(store)


def test_an_import_killed_anywhere_resumes_to_the_same_bytes(
    store: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = tmp_path / "t.zarr"
    failures, kills, is_through = 0, 0, False
    while not is_through:
        shutil.rmtree(back, ignore_errors=True)
        monkeypatch.setattr(system, "current", Failing(failures, errno.EIO))
        try:
            import_store(file, back)
            is_through = True
        except ResourceError:
            failures, kills = failures + 13, kills + 1
        monkeypatch.setattr(system, "current", system.System())
        assert import_store(file, back, durable=False)["is_original"]
        assert tree(back) == tree(store)
    assert kills > 5


def test_an_import_of_what_is_there_already_changes_nothing(store: Path, file: Path) -> None:
    before = tree(store)
    assert import_store(file, store)["is_original"]
    assert tree(store) == before


def test_an_import_does_not_vouch_for_a_sealed_store_that_lacks_files(
    store: Path, file: Path
) -> None:
    (store / "val/tokens/tap03/c.0.0.0").unlink()
    with pytest.raises(StoreError, match=r"val/tokens/tap03/c\.0\.0\.0 is missing"):
        import_store(file, store)


def test_a_shard_that_another_process_writes_is_waited_for(
    store: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back, plan = tmp_path / "t.zarr", open_h5(file).plan
    create_store(back, plan, samples(plan), statistics(plan))
    wait, left = StoreWriter.wait_for_others, []
    with StoreWriter(back) as other:
        next(other.claimed())

        def leave(writer: StoreWriter) -> bool:
            left.append(len(writer.tasks()))
            other.__exit__()
            return wait(writer)

        monkeypatch.setattr(StoreWriter, "wait_for_others", leave)
        import_store(file, back)
    assert left == [1, 0]
    assert tree(back) == tree(store)


def test_another_store_at_the_place_is_refused(file: Path, tmp_path: Path) -> None:
    plan, other = small_plan(), small_plan({"train": 21, "val": 8})
    changes = {
        "rows": (other, samples(other), statistics(other)),
        "mean": (plan, samples(plan), {**statistics(plan), "mean": statistics(plan)["std"]}),
    }
    for name, parts in changes.items():
        back = tmp_path / f"{name}.zarr"
        create_store(back, *parts)
        before = tree(back)
        with pytest.raises(MismatchError, match=f"{name}.*; give another --store$"):
            import_store(file, back)
        assert tree(back) == before
    place = tmp_path / "folder"
    place.mkdir()
    with pytest.raises(StoreError, match="is not a losa store"):
        import_store(file, place)


def test_rows_in_another_order_than_the_plans_are_refused(file: Path, tmp_path: Path) -> None:
    def swap(found: Any) -> None:
        order = found["val/sample/source_index"][()]
        found["val/sample/source_index"][...] = order[::-1]

    changed(file, swap, sign=True)
    with pytest.raises(StoreError, match="another order than its plan's"):
        import_store(file, tmp_path / "t.zarr")
    assert not (tmp_path / "t.zarr").exists()


def test_a_file_that_only_says_to_be_a_store_is_found_out(
    file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = {"store_id": "1" * 64, "taps": [1, 3], "splits": ["train", "val"]}
    changed(file, set_json("source", source), sign=True)
    assert open_h5(file).store_id == "1" * 64
    assert not import_store(file, tmp_path / "t.zarr")["is_original"]
    assert "is not the store that" in caplog.text


def test_a_key_that_hdf5_cannot_hold_is_refused(tmp_path: Path) -> None:
    plan, store = small_plan(), tmp_path / "s.zarr"
    listed = samples(plan)
    listed["val"][2] = type(listed["val"][2])("a\0", "a.png", 0)
    create_store(store, plan, listed, statistics(plan))
    fill_store(store, plan)
    with pytest.raises(StoreError, match="has a key with a zero byte in val"):
        export_store(store, tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("limit", "size", "what"),
    [
        ("MAX_JSON_BYTES", 100, "has too much plan for one file"),
        ("MAX_TABLE_BYTES", 170, "has keys too long for one file in train"),
    ],
)
def test_texts_beyond_what_is_read_again_are_not_written(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, size: int, what: str
) -> None:
    opened = open_store(store, verify="always")
    for split, item in opened.plan.splits.items():
        assert opened.split(split).samples
        for shard in range(layout.shard_count(item.rows, opened.plan.shard_rows)):
            opened.files.commit(split, shard)
    monkeypatch.setattr(exchange, "open_store", lambda *_, **__: opened)
    monkeypatch.setattr(files, limit, size)
    with pytest.raises(StoreError, match=what):
        export_store(store, tmp_path / "a.h5")
