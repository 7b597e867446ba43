"""Claims of losa.store.opening: a folder is a store, and a file by its name one of HDF5."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from losa.errors import StoreError
from losa.store import Store
from losa.store.h5store import H5Store
from losa.store.opening import open_source
from tests.store.build import small_store
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


def test_the_library_loads_with_the_first_file_that_needs_it() -> None:
    code = (
        "import json, sys, losa.store, losa.store.opening, losa.store.exchange;"
        "print(json.dumps('h5py' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert json.loads(done.stdout) is False
