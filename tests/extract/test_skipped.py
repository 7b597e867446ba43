"""Claims of losa.extract.skipped: what a run could not read, people can."""

from __future__ import annotations

import csv
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from losa.config import ExtractConfig
from losa.errors import InputError
from losa.extract.planning import Inputs, gather_inputs
from losa.extract.run import extract
from losa.extract.skipped import COLUMNS, code_name, list_skipped, skipped_file
from losa.store import layout, open_store
from tests.extract.odd_decoders import troubled
from tests.extract.picture_folder import picture_folder, tiny_config


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return picture_folder(tmp_path / "data", {"train": 5, "val": 2})


def lines(store: Path) -> list[list[str]]:
    with skipped_file(store).open(newline="") as file:
        first, *rest = csv.reader(file)
    assert first == list(COLUMNS)
    return rest


def row_of(store: Path, split: str, path: str) -> str:
    reader = open_store(store).split(split)
    paths = [reader.samples[index].path for index in reader.source_index]
    return str(paths.index(path))


def test_the_list_names_every_skipped_row_of_every_split_however_files_are_named(
    data: Path, tmp_path: Path
) -> None:
    odd, store = 'train/red/a "b", c.png', tmp_path / "s.zarr"
    (data / odd).write_bytes(b"no image")
    (data / "val/blue/000.png").write_bytes(b"")
    result = extract(tiny_config(data, store, on_error="skip", max_skip=1.0))
    assert (result["skipped"], result["skipped_csv"]) == (2, f"{store}.skipped.csv")
    gone, empty = row_of(store, "train", odd), row_of(store, "val", "val/blue/000.png")
    why = "is none of JPEG, PNG, WEBP, BMP, GIF, TIFF, PPM"
    assert lines(store) == [
        ["train", gone, odd, odd, "FORMAT", why],
        ["val", empty, "val/blue/000.png", "val/blue/000.png", "CORRUPT", "is empty"],
    ]


def test_a_resumed_run_lists_also_what_was_skipped_before_it(data: Path, tmp_path: Path) -> None:
    for name in ("train/red/000.png", "train/red/001.png", "val/red/000.png"):
        (data / name).write_bytes(b"")
    store, config = tmp_path / "s.zarr", {"on_error": "skip", "max_skip": 1.0}
    extract(tiny_config(data, store, **config))
    whole = skipped_file(store).read_bytes()
    skipped_file(store).unlink()
    (store / layout.SEALED_OBJECT).unlink()
    (store / layout.commit_object("val", 0)).unlink()
    assert extract(tiny_config(data, store, **config))["skipped"] == 3
    assert skipped_file(store).read_bytes() == whole


def test_a_list_that_is_no_longer_true_is_removed(data: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    skipped_file(store).write_text("of an older store")
    assert extract(tiny_config(data, store))["skipped_csv"] is None
    assert not skipped_file(store).exists()
    assert list_skipped(store, durable=False) is None


def test_a_status_of_a_newer_losa_is_listed_by_its_number() -> None:
    assert [code_name(code) for code in (2, 9, 10, 11, 200)] == [
        "MISSING",
        "CRASH",
        "TIMEOUT",
        "CHANGED",
        "200",
    ]


def test_an_image_that_kills_every_decoder_is_a_skipped_row_of_a_run_that_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("losa.extract.decode.load_pixels", troubled)
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    victim = "train/green/segfault.png"
    shutil.copy(data / "train/red/000.png", data / victim)
    store, clean = tmp_path / "s.zarr", tmp_path / "clean.zarr"
    options = {"on_error": "skip", "max_skip": 1.0, "split": ("train",)}
    extract(tiny_config(data, store, num_workers=1, **options))
    row = row_of(store, "train", victim)
    assert lines(store) == [
        ["train", row, victim, victim, "CRASH", "ended its decoder twice (signal 11)"]
    ]
    (data / victim).write_bytes(b"no image, and so in a clean run it is skipped as well")
    monkeypatch.undo()
    extract(tiny_config(data, clean, **options))
    for tap in (2, 11):
        for shard in sorted((store / f"train/tokens/tap{tap:02d}").glob("c.*")):
            other = clean / shard.relative_to(store)
            np.testing.assert_array_equal(np.fromfile(shard, "u1"), np.fromfile(other, "u1"))


def test_a_file_written_during_the_run_ends_it_or_is_skipped_as_asked(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in data.rglob("*.png"):
        os.utime(path, (0, 0))
    (data / "train/red/002.png").touch()

    def an_hour_ago(config: ExtractConfig, *, processes: int) -> Inputs:
        inputs = gather_inputs(config, processes=processes)
        return replace(inputs, opened_ns=inputs.opened_ns - 3600 * 10**9)

    monkeypatch.setattr("losa.extract.run.gather_inputs", an_hour_ago)
    with pytest.raises(InputError, match=r"red/002\.png: was written while the run") as caught:
        extract(tiny_config(data, tmp_path / "s.zarr"))
    assert caught.value.exit_code == 3
    extract(tiny_config(data, tmp_path / "s.zarr", on_error="skip", max_skip=1.0))
    assert [line[3:5] for line in lines(tmp_path / "s.zarr")] == [["train/red/002.png", "CHANGED"]]
