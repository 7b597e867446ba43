"""What tests of extraction start from: models, pictures, a store to extend, and what it becomes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from losa.extract.run import extract
from tests.extract.drawn_once import models_drawn_once
from tests.extract.extending import built_once
from tests.extract.picture_folder import picture_folder, tiny_config
from tests.extract.processes import end_all


@pytest.fixture(scope="session", autouse=True)
def _models_are_drawn_once() -> Iterator[None]:
    with models_drawn_once():
        yield


@pytest.fixture(autouse=True)
def _no_process_outlives_its_test() -> Iterator[None]:
    yield
    end_all()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("pictures"), {"train": 7, "val": 2})


@pytest.fixture(scope="module")
def quick_backbones() -> Iterator[None]:
    """For modules that extract much: a backbone is built once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("losa.extract.planning.build_backbone", built_once)
        yield


@pytest.fixture(scope="session")
def small(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of one split at taps 2 and 11."""
    path = tmp_path_factory.mktemp("small") / "s.zarr"
    extract(tiny_config(pictures, path, split=("train",)))
    return path


@pytest.fixture(scope="session")
def large(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of both splits at taps 0, 2 and 11, extracted in one go."""
    path = tmp_path_factory.mktemp("large") / "s.zarr"
    extract(tiny_config(pictures, path, taps="0,2,11"))
    return path


@pytest.fixture
def store(small: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small, tmp_path / "s.zarr"))
