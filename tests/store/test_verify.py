"""Claims of losa.store.verify."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from zarr.codecs import TransposeCodec

from losa.errors import ResourceError, StoreError
from losa.store import files, layout
from losa.store.exchange import export_store, import_store
from losa.store.repair import repair_store
from losa.store.seal import seal_digest
from losa.store.verify import verify_store
from tests.store.build import begin_store, fill_store, small_plan, small_store, tree
from tests.store.rezarr import recompressed


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_store(tmp_path_factory.mktemp("verify") / "s.zarr")


def names(path: Path, *, deep: bool = True) -> list[str]:
    """Paths that verification complains of."""
    return [problem.path for problem in verify_store(path, deep=deep)]


def test_a_sound_store_has_no_problem(sealed: Path) -> None:
    assert verify_store(sealed) == []
    assert verify_store(sealed, deep=False) == []


def test_any_flipped_bit_of_any_file_is_found_and_its_file_named(
    tmp_path: Path,
) -> None:
    path = small_store(tmp_path / "s.zarr", small_plan({"train": 6, "val": 2}, "int8", 4))
    draw = random.Random(0)
    for file in sorted(item for item in path.rglob("*") if item.is_file()):
        before = file.read_bytes()
        data = bytearray(before)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        file.write_bytes(data)
        found = names(path)
        name = file.relative_to(path).as_posix()
        assert name in found, name
        file.write_bytes(before)
    assert names(path) == []


def test_any_missing_truncated_or_grown_file_is_found_and_named(
    tmp_path: Path,
) -> None:
    path = small_store(tmp_path / "s.zarr", small_plan({"train": 6, "val": 2}, shard_rows=4))
    for file in sorted(item for item in path.rglob("*") if item.is_file()):
        name = file.relative_to(path).as_posix()
        before = file.read_bytes()
        for data in (None, before[:-1], before + b"x"):
            file.unlink()
            if data is not None:
                file.write_bytes(data)
            found = names(path, deep=False)
            assert name in found, name
            file.write_bytes(before)


def test_a_damaged_record_is_named_by_its_row(sealed: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(sealed, tmp_path / "s.zarr"))
    shard = path / "train/tokens/tap01/c.1.0.0"
    data = bytearray(shard.read_bytes())
    data[3 * 60 + 5] ^= 4
    shard.write_bytes(data)
    (problem,) = verify_store(path)
    assert problem.what == "row 11 does not match its checksum"
    assert verify_store(path, deep=False) == []


def test_a_stray_file_is_named(sealed: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(sealed, tmp_path / "s.zarr"))
    (path / "train/tokens/tap01/c.9.0.0").write_bytes(b"")
    assert names(path) == ["train/tokens/tap01/c.9.0.0"]


def test_a_stray_folder_is_named_and_not_entered(sealed: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(sealed, tmp_path / "s.zarr"))
    (path / "train/tokens/tap07/deep").mkdir(parents=True)
    (path / ".losa/notes").mkdir()
    (path / ".losa/notes/a.txt").write_text("a")
    assert names(path) == [".losa/notes", "train/tokens/tap07"]


@pytest.mark.parametrize("name", ["train", "train/tokens/tap01", "val/check", "calib", ".losa/tmp"])
def test_a_linked_folder_is_named_wherever_it_leads(
    sealed: Path, tmp_path: Path, name: str
) -> None:
    path = Path(shutil.copytree(sealed, tmp_path / "s.zarr"))
    (path / name).rename(tmp_path / "aside")
    (path / name).symlink_to(tmp_path / "aside")
    assert names(path) == [name]


def test_a_store_without_its_empty_folders_is_sound(sealed: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(sealed, tmp_path / "s.zarr"))
    shutil.rmtree(path / ".losa/tmp")
    shutil.rmtree(path / ".losa/claims")
    assert names(path) == []


def test_a_failing_disk_is_a_resource_error_that_names_the_file(
    sealed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.preadv

    def preadv(handle: int, buffers: Any, offset: int) -> int:
        if Path(f"/proc/self/fd/{handle}").readlink().match("tap03/c.0.0.0"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(handle, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(ResourceError, match=r"train/tokens/tap03/c\.0\.0\.0: input/output error"):
        verify_store(sealed)


def test_progress_ends_at_all_token_bytes(sealed: Path) -> None:
    told: list[tuple[int, int]] = []
    verify_store(sealed, progress=lambda done, total: told.append((done, total)))
    size = sum(file.stat().st_size for file in sealed.glob("*/tokens/*/c.*"))
    assert told[-1] == (size, size)


def test_a_store_without_its_seal_is_verified_all_the_same(sealed: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(sealed, tmp_path / "s.zarr"))
    (path / layout.SEALED_OBJECT).unlink()
    (problem,) = verify_store(path)
    assert problem.path == layout.SEALED_OBJECT
    assert problem.what == "is missing (4 of 4 shards are committed)"
    (path / layout.TMP_FOLDER / "half").write_text("a writer's")
    (path / layout.UNSYNCED_OBJECT).write_text("a boot")
    for file in ("train/sample/label/c.0", "train/tokens/tap01/c.1.0.0", "val/zarr.json"):
        (path / file).write_bytes(b"x" + (path / file).read_bytes()[1:])
    (path / layout.commit_object("train", 0)).write_bytes(b'{"a":1}\n')
    assert names(path) == [
        layout.commit_object("train", 0),
        layout.SEALED_OBJECT,
        "train/sample/label/c.0",
        "train/tokens/tap01/c.1.0.0",
        "val/zarr.json",
    ]


def test_a_store_that_is_being_written_has_no_problem_but_that(tmp_path: Path) -> None:
    path, plan = tmp_path / "s.zarr", small_plan()
    begin_store(path, plan)
    (problem,) = verify_store(path)
    assert problem.what == "is missing (0 of 4 shards are committed)"
    fill_store(path, plan)
    assert verify_store(path) == []


def test_columns_are_not_judged_by_a_samples_table_that_is_damaged(tmp_path: Path) -> None:
    path = small_store(tmp_path / "s.zarr")
    (path / layout.SEALED_OBJECT).unlink()
    table = layout.samples_object("train")
    for name in (table, layout.spare_object(table)):
        (path / name).write_bytes((path / name).read_bytes()[:-1])
    assert names(path) == [layout.SEALED_OBJECT]
    (path / table).unlink()
    assert names(path) == [table, layout.SEALED_OBJECT, layout.spare_object(table)]


def test_a_seal_that_says_of_the_shards_what_is_not_so_is_named(tmp_path: Path) -> None:
    path = small_store(tmp_path / "s.zarr")
    seal = files.read_json(path / layout.SEALED_OBJECT)
    seal["splits"]["train"]["ok"] = 19
    seal["digest"] = seal_digest(seal)
    (path / layout.SEALED_OBJECT).write_bytes(files.canonical_json(seal))
    assert names(path) == [layout.SEALED_OBJECT]


def test_the_quarantine_is_not_entered(sealed: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(sealed, tmp_path / "s.zarr"))
    (path / layout.QUARANTINE_FOLDER / "0001/train").mkdir(parents=True)
    (path / layout.QUARANTINE_FOLDER / "0001/train/zarr.json").write_text("damaged")
    assert names(path) == []


def test_what_is_no_store_is_refused(sealed: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        verify_store(tmp_path / "s.zarr")
    (tmp_path / "file").write_text("a")
    for path, what in ((tmp_path, "is not a losa store"), (tmp_path / "file", "is a file")):
        with pytest.raises(StoreError, match=what):
            verify_store(path)


def test_a_newer_store_is_refused_and_a_damaged_version_is_not(tmp_path: Path) -> None:
    path = small_store(tmp_path / "s.zarr")
    root = (path / "zarr.json").read_bytes()
    (path / "zarr.json").write_bytes(root.replace(b'"major": 1', b'"major": 2'))
    assert names(path) == ["zarr.json"]
    for name in tree(path / ".losa"):
        data = (path / ".losa" / name).read_bytes()
        (path / ".losa" / name).write_bytes(data.replace(b'"major":1', b'"major":2'))
    with pytest.raises(StoreError, match="is losa store format 2"):
        verify_store(path)


FOREIGN: dict[str, dict[str, Any]] = {
    "all arrays": {},
    "tokens": {"only": "val/tokens"},
    "scales": {"only": "val/scale"},
    "one array, as large as before": {
        "only": "train/tokens/tap03",
        "chunks": (8, 5, 6),
        "compressors": None,
        "filters": [TransposeCodec(order=(0, 2, 1))],
        "chunk_key_encoding": {"name": "default", "separator": "."},
    },
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_arrays_are_no_damage_and_never_mended(tmp_path: Path, name: str) -> None:
    raw = small_store(tmp_path / "r.zarr", small_plan(dtype="int8"))
    path = recompressed(raw, tmp_path / "s.zarr", **FOREIGN[name])
    before = tree(path)
    for act in (verify_store, lambda path: repair_store(path, act=True)):
        with pytest.raises(StoreError, match=r"recompressed by zarr.*; export and import it$"):
            act(path)
    assert tree(path) == before
    export_store(path, tmp_path / "a.h5")
    import_store(tmp_path / "a.h5", tmp_path / "t.zarr")
    assert tree(tmp_path / "t.zarr") == tree(raw)


@pytest.mark.parametrize("change", [{"chunk_key_encoding": {}}, {"codecs": [{"name": "zstd"}]}])
@pytest.mark.parametrize("broken", [(), (0,), (0, 1)])
def test_a_document_that_only_says_to_be_foreign_is_damage_while_a_shard_is_sound(
    sealed: Path, tmp_path: Path, change: dict[str, Any], broken: tuple[int, ...]
) -> None:
    path = Path(shutil.copytree(sealed, tmp_path / "s.zarr"))
    document = path / "train/tokens/tap01/zarr.json"
    document.write_text(json.dumps({**json.loads(document.read_bytes()), **change}))
    for shard in broken:
        (path / f"train/tokens/tap01/c.{shard}.0.0").unlink()
    assert "train/tokens/tap01/zarr.json" in names(path)
    repair_store(path, act=True)
    assert "train/tokens/tap01/zarr.json" not in names(path)


def test_where_nothing_is_committed_nothing_is_foreign(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    begin_store(path, small_plan())
    document = path / "train/tokens/tap01/zarr.json"
    document.write_text(json.dumps({**json.loads(document.read_bytes()), "codecs": ["zstd"]}))
    (path / layout.commit_object("train", 0)).write_text("{}")
    assert names(path)[0] == layout.commit_object("train", 0)
