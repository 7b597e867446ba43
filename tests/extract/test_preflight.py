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
from losa.extract.fleet import Place
from losa.extract.preflight import preflight
from losa.extract.run import extract
from losa.store import layout
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


def test_each_process_has_room_for_a_shard_that_is_open(
    monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path
) -> None:
    config = tiny_config(data, tmp_path / "s.zarr")
    dataset = load_dataset(config.dataset, config.data_dir)
    # 15 rows and 2 %, beside three shards of 4 rows; beside seven there are no more than 15 rows.
    for processes, rows in ((3, 27.3), (7, 30.3)):
        with_free(monkeypatch, int(rows * SAMPLE_BYTES) + 1)
        preflight(config, dataset, processes=processes)
        with_free(monkeypatch, int(rows * SAMPLE_BYTES) - 1)
        with pytest.raises(ResourceError, match="needed"):
            preflight(config, dataset, processes=processes)
    with_free(monkeypatch, int(27.3 * SAMPLE_BYTES) - 1)
    with pytest.raises(ResourceError, match="needed"):
        extract(config, place=Place(1, 3))


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


def test_what_is_written_of_open_shards_is_not_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path
) -> None:
    config = tiny_config(data, tmp_path / "s.zarr")
    extract(config)
    dataset = load_dataset(config.dataset, config.data_dir)
    (config.store / layout.SEALED_OBJECT).unlink()
    (config.store / layout.commit_object("train", 0)).unlink()
    (config.store / layout.TMP_FOLDER / "open").write_bytes(bytes(SAMPLE_BYTES))
    # A shard of 4 rows and 2 %, and as much to spare, less a row that is there.
    with_free(monkeypatch, int(7.08 * SAMPLE_BYTES) + 1)
    preflight(config, dataset)
    with_free(monkeypatch, int(7.08 * SAMPLE_BYTES) - 1)
    with pytest.raises(ResourceError, match="needed"):
        preflight(config, dataset)


def test_an_extension_by_several_processes_has_room_for_a_shard_of_each(
    monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path
) -> None:
    config = tiny_config(data, tmp_path / "s.zarr", taps="2")
    extract(config)
    more = config.model_copy(update={"taps": "11", "extend": True})
    # One tap of 15 rows is 8 rows of both, and 2 %; beside it one shard of 4 rows, or all 8.
    with_free(monkeypatch, int(14 * SAMPLE_BYTES))
    with pytest.raises(ResourceError, match="needed"):
        extract(more, place=Place(0, 3))
    assert extract(more)["computed_rows"] == 15
