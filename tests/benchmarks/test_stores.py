from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.stores import BATCH, random_plan, random_planes, random_store, scratch
from losa.features import FeatureSpec
from losa.store import open_store


def test_rows_repeat_when_the_store_has_more_than_the_planes(
    tmp_path: Path, toy: FeatureSpec
) -> None:
    planes = random_planes(toy, BATCH)
    path = random_store(tmp_path / "s.zarr", random_plan(toy, 2 * BATCH + 7, 20), planes)
    rows = np.arange(2 * BATCH + 7)
    out = np.empty((4, len(rows), 5, 8), np.float16)
    open_store(path).split("train").read_into(rows, toy.taps, out)
    assert np.array_equal(out, planes[:, rows % BATCH])


def test_random_planes_are_finite(toy: FeatureSpec) -> None:
    assert np.isfinite(random_planes(toy, 64)).all()


def test_a_scratch_folder_is_gone_afterwards(tmp_path: Path) -> None:
    with scratch(tmp_path) as folder:
        (folder / "file").touch()
        assert folder.parent == tmp_path
    assert not folder.exists()


def test_a_folder_for_scratch_is_made_where_there_is_none_yet(tmp_path: Path) -> None:
    with scratch(tmp_path / "runs/bench") as folder:
        assert folder.parent == tmp_path / "runs/bench"
    assert list((tmp_path / "runs/bench").iterdir()) == []
