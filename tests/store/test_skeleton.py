"""Claims of losa.store.skeleton."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from losa.store.skeleton import metadata_documents, root_document
from tests.store.build import begin_store, small_plan, statistics


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


def test_calibration_is_written_per_tap_as_float32(tmp_path: Path) -> None:
    plan = small_plan()
    begin_store(tmp_path / "s.zarr", plan)
    data = (tmp_path / "s.zarr/calib/tap03/std/c.0").read_bytes()
    np.testing.assert_array_equal(np.frombuffer(data, "<f4"), statistics(plan)["std"][1])
