"""Claims of losa.store.inspect."""

from __future__ import annotations

import shutil
from pathlib import Path

from losa.store import open_store
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
