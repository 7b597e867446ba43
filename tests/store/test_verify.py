"""Claims of losa.store.verify."""

from __future__ import annotations

import errno
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from losa.errors import ResourceError, StoreError
from losa.store import layout
from losa.store.verify import verify_store
from tests.store.build import small_store

ENTRANCES = (layout.SEALED_OBJECT, layout.ROOT_OBJECT)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_store(tmp_path_factory.mktemp("verify") / "s.zarr")


def names(path: Path, *, deep: bool = True) -> list[str]:
    """Paths that verification complains of, also when the store does not even open."""
    try:
        return [problem.path for problem in verify_store(path, deep=deep)]
    except StoreError as error:
        return [Path(error.subject).relative_to(path).as_posix()]


def test_a_sound_store_has_no_problem(sealed: Path) -> None:
    assert verify_store(sealed) == []
    assert verify_store(sealed, deep=False) == []


def test_any_flipped_bit_of_any_file_is_found_and_its_file_named(
    sealed: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(sealed, tmp_path / "s.zarr"))
    draw = random.Random(0)
    for file in sorted(item for item in path.rglob("*") if item.is_file()):
        before = file.read_bytes()
        data = bytearray(before)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        file.write_bytes(data)
        found = names(path)
        name = file.relative_to(path).as_posix()
        # A changed seal vouches for nothing: whatever it contradicts may be named instead of it.
        assert name in found or (found and name == layout.SEALED_OBJECT), name
        file.write_bytes(before)
    assert names(path) == []


def test_any_missing_truncated_or_grown_file_is_found_and_named(
    sealed: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(sealed, tmp_path / "s.zarr"))
    for file in sorted(item for item in path.rglob("*") if item.is_file()):
        name = file.relative_to(path).as_posix()
        before = file.read_bytes()
        for data in (None, before[:-1], before + b"x"):
            file.unlink()
            if data is not None:
                file.write_bytes(data)
            found = names(path, deep=False)
            # Without its root or its seal the folder itself is no (sealed) store any more.
            assert name in found or (found == ["."] and name in ENTRANCES)
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
