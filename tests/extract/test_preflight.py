"""Claims of losa.extract.preflight: the bill and the disk come before the backbone."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest

from losa.errors import ResourceError
from losa.extract import planning
from losa.extract.datasets import load_dataset
from losa.extract.preflight import preflight
from losa.extract.run import extract
from tests.extract.picture_folder import picture_folder, tiny_config

SAMPLE_BYTES = 2 * 5 * 192 * 2


class Disk:
    """What ``os.statvfs`` says of a disk with so many bytes free."""

    def __init__(self, free: int) -> None:
        self.f_bavail, self.f_frsize = free, 1


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return picture_folder(tmp_path / "d", {"train": 4, "val": 1})


def with_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: Disk(free))


def test_a_disk_that_cannot_hold_it_is_refused_before_the_backbone_is_built(
    monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path
) -> None:
    def build(*_: Any, **__: Any) -> None:
        raise AssertionError("the backbone was built")

    monkeypatch.setattr(planning, "build_backbone", build)
    # 15 rows and 2 % beside one shard of 4 rows.
    with_free(monkeypatch, int(19.3 * SAMPLE_BYTES) - 1)
    with pytest.raises(ResourceError, match=r"needed, .* free on its disk") as caught:
        extract(tiny_config(data, tmp_path / "s.zarr"))
    assert caught.value.exit_code == 6
    with_free(monkeypatch, int(19.3 * SAMPLE_BYTES) + 1)
    with pytest.raises(AssertionError, match="was built"):
        extract(tiny_config(data, tmp_path / "s.zarr"))


def test_one_line_says_rows_bytes_and_free_space(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny_config(data, tmp_path / "s.zarr", views=2)
    dataset = load_dataset(config.dataset, config.data_dir)
    with caplog.at_level(logging.INFO, "losa"):
        preflight(config, dataset)
    (line,) = [text for text in caplog.messages if "to compute" in text]
    assert line.startswith("27 rows to compute, 3.84 kB each (2 taps, 5 tokens, float16): 104 kB")


def test_a_store_that_is_there_needs_room_for_what_is_missing_only(
    monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny_config(data, tmp_path / "s.zarr")
    extract(config)
    dataset = load_dataset(config.dataset, config.data_dir)
    with_free(monkeypatch, 0)
    caplog.clear()
    with caplog.at_level(logging.INFO, "losa"):
        preflight(config, dataset)
        preflight(config.model_copy(update={"extend": True}), dataset)
    assert not [text for text in caplog.messages if "to compute" in text]
    with pytest.raises(ResourceError):
        preflight(config.model_copy(update={"overwrite": True}), dataset)
