"""Claims of losa.store.opening: what trains on a store trains on its file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from losa.adapt.evaluate import evaluate
from losa.adapt.train import adapt
from losa.config import AdaptConfig
from losa.errors import StoreError
from losa.features import StoreDtype
from losa.store import Store
from losa.store.exchange import export_store
from losa.store.h5store import H5Store
from losa.store.opening import open_source
from tests.store.build import small_plan, small_store
from tests.store.h5build import h5_file


def test_a_folder_is_opened_as_a_store_whatever_its_name(tmp_path: Path) -> None:
    assert isinstance(open_source(small_store(tmp_path / "s.h5")), Store)


@pytest.mark.parametrize("name", ["a.h5", "a.hdf5", "a.H5"])
def test_a_file_is_opened_by_its_name(tmp_path: Path, name: str) -> None:
    path = h5_file(tmp_path / "x.h5").rename(tmp_path / name)
    assert isinstance(open_source(str(path), verify="always"), H5Store)


@pytest.mark.parametrize("name", ["a.zarr", "a.h5"])
def test_what_is_not_there_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        open_source(tmp_path / name)


def test_a_file_by_another_name_is_no_store_and_what_it_is_good_for_is_said(tmp_path: Path) -> None:
    path = h5_file(tmp_path / "x.h5").rename(tmp_path / "x.data")
    message = "x.data: is a file, and a store is a folder; import an HDF5 file of losa export, or"
    with pytest.raises(StoreError, match=message):
        open_source(path)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_run_on_the_file_is_the_run_on_the_store(tmp_path: Path, dtype: StoreDtype) -> None:
    store, file = small_store(tmp_path / "s.zarr", small_plan(dtype=dtype)), tmp_path / "s.h5"
    export_store(store, file)
    reports = []
    for path, out in ((store, tmp_path / "a"), (file, tmp_path / "b")):
        config = AdaptConfig(
            store=path, out=out, rank=2, epochs=2, batch_size=8, device="cpu", seed=1
        )
        reports.append(adapt(config))
    ours, theirs = reports
    assert ours.metrics == theirs.metrics
    assert ours.store_id == theirs.store_id
    found = [evaluate(tmp_path / "a", path, "val", device="cpu") for path in (store, file, None)]
    assert found[0] == found[1] == found[2]
    left, right = ((tmp_path / run / "best.safetensors").read_bytes() for run in "ab")
    assert (
        left[8 + int.from_bytes(left[:8], "little") :]
        == (right[8 + int.from_bytes(right[:8], "little") :])
    )


def test_the_library_loads_with_the_first_file_that_needs_it() -> None:
    code = (
        "import json, sys, losa.store, losa.store.opening, losa.store.exchange;"
        "print(json.dumps('h5py' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert json.loads(done.stdout) is False
