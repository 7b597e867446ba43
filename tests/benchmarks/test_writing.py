from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from benchmarks import peers, writing
from benchmarks.contenders import has_tensorstore
from benchmarks.stores import random_planes
from losa.features import FeatureSpec
from tests.benchmarks.conftest import Published


def test_the_cost_of_durability_is_a_share_of_the_extraction(
    monkeypatch: pytest.MonkeyPatch, published: Published, toy: FeatureSpec
) -> None:
    monkeypatch.setattr(writing, "VIT_B", toy)
    argv = ["--rows", "40", "--shard-rows", "16", "--rounds", "1", "--forward-ms", "2"]
    assert writing.main(argv) == 0
    document = published("writing")
    full, none = (document["seconds"][name]["best"] for name in (writing.FULL, writing.NONE))
    cost = document["durability"]["best"]
    assert cost["of_writing"] == pytest.approx((full - none) / none, abs=1e-3)
    assert cost["of_extraction_at_2_ms"] == pytest.approx((full - none) / (none + 0.08), abs=1e-3)
    assert document["durability"]["paired"] == cost
    assert document["object_bytes"] == 16 * 80
    ratios = {name: document[name]["hit"] for name in ("losa_to_bare", "losa_to_bare_unsynced")}
    assert document["hits"] == {**ratios, "durability_of_extraction_at_2_ms": None}


@pytest.mark.parametrize(("share", "hit"), [(0.02, True), (0.03, True), (0.04, False)])
def test_syncs_of_large_objects_may_cost_three_per_cent_of_an_extraction(
    share: float, hit: bool
) -> None:
    ratio = {"hit": True}
    cost = {"best": {"of_writing": 0.5, "of_extraction_at_1_ms": share}}
    result = {"losa_to_bare": ratio, "losa_to_bare_unsynced": ratio, "durability": cost}
    assert writing.hits(result, 2**26)["durability_of_extraction_at_1_ms"] is hit
    assert writing.hits(result, 2**26 - 1)["durability_of_extraction_at_1_ms"] is None


def test_the_paired_cost_is_the_median_of_the_rounds_own() -> None:
    times = {writing.FULL: [1.1, 22.0, 1.3], writing.NONE: [1.0, 20.0, 1.0]}
    cost = writing.durability(times, {"of_writing": 0.0})
    assert cost["paired"]["of_writing"] == pytest.approx(0.1)
    assert cost["median"]["of_writing"] == pytest.approx(0.3)


def test_the_bare_writer_writes_as_many_bytes_and_syncs_as_often(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, toy: FeatureSpec
) -> None:
    monkeypatch.setattr(writing, "VIT_B", toy)
    planes = random_planes(toy, 40)
    bench = writing.Writing(tmp_path, planes, 16)
    with writing.counted_syncs() as syncs:
        bench.bare_write(tmp_path / "bare", planes, bench.syncs)
    assert len(syncs) == bench.syncs > 0
    sizes = writing.sizes(tmp_path / "bare")
    assert len(sizes) == len(bench.small) + len(bench.token_files)
    assert sum(sizes.values()) >= planes.nbytes


def test_syncs_are_counted_and_done(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file, writing.counted_syncs() as syncs:
        os.fsync(file.fileno())
        os.fdatasync(file.fileno())
    assert len(syncs) == 2


def test_every_peer_writes_the_planes(tmp_path: Path, toy: FeatureSpec) -> None:
    planes = random_planes(toy, 40)
    for name, write in peers.writers(16).items():
        write(tmp_path / name, planes)
    with h5py.File(tmp_path / "h5py, a chunk a record") as file:
        assert np.array_equal(file["tap02"][:], planes[2])
    row = np.load(tmp_path / "np.save, a file a sample" / "39.npy")
    assert np.array_equal(row, planes[:, 39])
    sharded = ["zarr-python, sharded"] + ["tensorstore, sharded"] * has_tensorstore()
    for name in sharded:
        array = zarr.open_array(str(tmp_path / name / "tap03"), mode="r")
        assert np.array_equal(array[:], planes[3])
