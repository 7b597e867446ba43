from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import contenders
from benchmarks.contenders import Reads, Rows
from benchmarks.sequential import preadv
from benchmarks.stores import random_plan, random_planes, random_store
from losa.features import FeatureSpec
from losa.store import open_store

ROWS = 20


@pytest.fixture
def planes(toy: FeatureSpec) -> np.ndarray:
    return random_planes(toy, ROWS)


@pytest.fixture
def path(toy: FeatureSpec, planes: np.ndarray, tmp_path: Path) -> Path:
    return random_store(tmp_path / "store.zarr", random_plan(toy, ROWS, 8), planes)


def read(name: str, path: Path, planes: np.ndarray) -> Reads:
    folder, taps = path.parent, (2, 5, 8, 11)
    if name == "tensorstore":
        pytest.importorskip("tensorstore", reason="the extra `bench` is not installed")
    makers = {
        "losa": lambda: contenders.losa(open_store(path).split("train")),
        "memory": lambda: contenders.memory(planes),
        "memmap": lambda: contenders.memmap(
            contenders.write_raw(folder / "raw", planes), planes.shape
        ),
        "hdf5": lambda: contenders.hdf5(contenders.write_hdf5(folder / "peer.h5", planes)),
        "saved": lambda: contenders.saved(contenders.write_saved(folder / "saved", planes), 2),
        "zarr": lambda: contenders.zarr_python(path, taps),
        "tensorstore": lambda: contenders.tensorstore(path, taps, 2),
    }
    return makers[name]()


@pytest.mark.parametrize(
    "name", ["losa", "memory", "memmap", "hdf5", "saved", "zarr", "tensorstore"]
)
@pytest.mark.parametrize("rows", [np.array([19, 0, 7, 8, 3]), slice(6, 11)], ids=str)
def test_every_contender_reads_what_was_written(
    name: str, rows: Rows, path: Path, planes: np.ndarray
) -> None:
    contenders.check(name, read(name, path, planes), rows, planes)


def test_plain_preadv_reads_what_was_written(path: Path, planes: np.ndarray) -> None:
    contenders.check("preadv", preadv(path, ROWS), slice(6, 11), planes)


def test_a_contender_that_reads_other_bytes_is_refused(planes: np.ndarray) -> None:
    with pytest.raises(AssertionError, match="sleepy read other bytes"):
        contenders.check("sleepy", lambda *_: [], slice(0, 4), planes)
