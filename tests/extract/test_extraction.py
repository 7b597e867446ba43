"""Claims of losa.extract.extraction."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from losa.config import ExtractConfig
from losa.extract.extraction import ExtractEvent
from losa.extract.run import extract
from losa.store import open_store
from tests.extract.picture_folder import picture_folder, tiny_config

COUNTS = {"train": 7, "val": 2}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("pictures"), COUNTS)


@pytest.fixture(scope="module")
def sealed(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sealed") / "s.zarr"
    extract(tiny_config(pictures, path))
    return path


def test_progress_counts_rows_to_the_total(pictures: Path, tmp_path: Path) -> None:
    told: list[ExtractEvent] = []
    extract(tiny_config(pictures, tmp_path / "s.zarr"), progress=told.append)
    rows = [event.done for event in told if event.phase == "extract"]
    assert rows == sorted(rows)
    assert (rows[0], rows[-1]) == (0, 27)
    assert told[0].phase == "calibrate"


def test_the_result_and_the_resolved_configuration_lie_beside_the_store(sealed: Path) -> None:
    record = json.loads((sealed.parent / "s.zarr.extract.json").read_text())
    assert record["result"]["store_id"] == open_store(sealed).store_id
    assert ExtractConfig(**record["config"]).img_size == 32
