"""Claims of losa.store.inspect."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from losa.errors import StoreError
from losa.store import files, layout, open_store
from losa.store.inspect import describe_store
from tests.store.build import begin_store, small_plan, small_store


def test_an_unfinished_store_is_described_with_its_progress(tmp_path: Path) -> None:
    begin_store(tmp_path / "s.zarr", small_plan())
    found = describe_store(tmp_path / "s.zarr")
    assert found["sealed"] is False
    assert found["store_id"] is None
    assert found["splits"]["train"] == {"rows": 20, "shards": 3, "committed": 0}


def test_a_sealed_store_is_described_with_its_id_and_bytes(tmp_path: Path) -> None:
    path = small_store(tmp_path / "s.zarr")
    found = describe_store(path)
    assert found["store_id"] == open_store(path).store_id
    assert found["token_bytes"] == 28 * 2 * 5 * 6 * 2


def test_a_store_without_its_empty_folders_is_described(tmp_path: Path) -> None:
    begin_store(tmp_path / "s.zarr", small_plan())
    for name in ("commits", "claims", "tmp"):
        shutil.rmtree(tmp_path / "s.zarr/.losa" / name)
    assert describe_store(tmp_path / "s.zarr")["splits"]["val"]["committed"] == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:0],
        lambda data: data[:-9],
        lambda data: data.replace(b'"ok":20', b'"ok":19'),
        lambda data: data.replace(b",", b", ", 1),
    ],
)
def test_of_a_damaged_seal_no_id_is_made_up(
    tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    seal = small_store(tmp_path / "s.zarr") / layout.SEALED_OBJECT
    before = files.read_file(seal)
    seal.write_bytes(change(before))
    assert seal.read_bytes() != before
    with pytest.raises(StoreError) as caught:
        describe_store(tmp_path / "s.zarr")
    assert caught.value.subject == str(seal)
