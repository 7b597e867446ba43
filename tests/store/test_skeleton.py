"""Claims of losa.store.skeleton."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from losa.features import StoreDtype
from losa.store import layout
from losa.store.seal import small_objects
from losa.store.skeleton import metadata_documents, root_document, spared_objects
from tests.store.build import begin_store, small_plan, statistics, tree


def test_every_node_has_its_document_and_every_parent_is_a_group(tmp_path: Path) -> None:
    plan = small_plan()
    begin_store(tmp_path / "s.zarr", plan)
    documents = metadata_documents(plan)
    for name in documents:
        assert (tmp_path / "s.zarr" / name / "zarr.json").is_file()
        parent = name.rpartition("/")[0]
        assert not parent or documents[parent]["node_type"] == "group"


def test_the_root_names_format_plan_and_writer() -> None:
    plan = small_plan()
    losa = root_document(plan)["attributes"]["losa"]
    assert losa["format"] == {"major": 1, "minor": 0}
    assert losa["plan"] == plan.digest
    assert losa["writer"] == plan.writer


def test_calibration_is_written_per_tap_as_float32(tmp_path: Path) -> None:
    plan = small_plan()
    begin_store(tmp_path / "s.zarr", plan)
    data = (tmp_path / "s.zarr/calib/tap03/std/c.0").read_bytes()
    np.testing.assert_array_equal(np.frombuffer(data, "<f4"), statistics(plan)["std"][1])


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_only_int8_stores_have_scales(tmp_path: Path, dtype: StoreDtype) -> None:
    plan = small_plan(dtype=dtype)
    begin_store(tmp_path / "s.zarr", plan)
    assert (tmp_path / "s.zarr/val/scale/tap03/zarr.json").exists() == (dtype == "int8")
    assert (tmp_path / "s.zarr/calib/tap01/channel/c.0").exists() == (dtype == "int8")


def test_the_files_of_the_empty_store_are_those_the_seal_will_list(tmp_path: Path) -> None:
    plan = small_plan(dtype="int8")
    begin_store(tmp_path / "s.zarr", plan)
    commits = {name for name in small_objects(plan) if name.startswith(".losa/commits")}
    assert set(tree(tmp_path / "s.zarr")) == set(small_objects(plan)) - commits


def test_originals_and_spares_pair_up(tmp_path: Path) -> None:
    plan = small_plan()
    begin_store(tmp_path / "s.zarr", plan)
    have = tree(tmp_path / "s.zarr")
    for name in spared_objects(plan):
        assert have[name] == have[layout.spare_object(name)]
