"""Claims of losa.extract.rehearsal: a small extraction foretells a large one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from losa.extract.extraction import ExtractEvent
from losa.extract.planning import gather_inputs
from losa.extract.rehearsal import Clock, Pass, Rehearsal, rehearse
from tests.extract.picture_folder import picture_folder, tiny_config

SMALL = Rehearsal(
    rows=100,
    calibration_rows=50,
    shard_rows=1000,
    sample_bytes=1000,
    calibration=Pass(2.0, 10, 20.0),
    extraction=Pass(3.0, 10, 10.0),
    create_seconds=0.5,
    close_seconds=0.25,
)


def test_a_large_extraction_takes_as_long_as_its_parts() -> None:
    calibration = 2.0 + (50 - 10) / 20
    extraction = 3.0 + (5000 - 10) / 10
    closing = 0.25 * 10  # ten times the rows of the rehearsal lie in the last shard
    expected = calibration + 0.5 + extraction + closing
    assert SMALL.seconds(5000, None) == pytest.approx(expected)
    assert SMALL.seconds(5000, 1e9) == pytest.approx(expected)


def test_a_slow_disk_takes_the_place_of_computing() -> None:
    parts = 2.0 + 40 / 20 + 0.5 + 0.25 * 10
    assert SMALL.seconds(5000, 5000.0) == pytest.approx(parts + 5000 * 1000 / 5000)


def test_rows_that_calibration_keeps_are_decoded_again_and_not_forwarded() -> None:
    kept = replace(SMALL, kept_rows=50, decode_rate=25.0)
    parts = 2.0 + 40 / 20 + 0.5 + 0.25
    assert kept.seconds(100, None) == pytest.approx(parts + 3.0 + (50 - 10) / 10 + 50 / 25)
    # With nothing left to forward there is no first batch to wait for either.
    assert kept.seconds(50, None) == pytest.approx(parts + 50 / 25)


def test_no_more_rows_calibrate_than_there_are() -> None:
    fewer = SMALL.seconds(20, None)
    assert fewer == pytest.approx(2.0 + 10 / 20 + 0.5 + 3.0 + 10 / 10 + 0.25)


def test_a_pass_is_timed_without_its_start_and_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 13.0, 14.0, 15.0, 25.0])
    monkeypatch.setattr("losa.extract.rehearsal.time.perf_counter", lambda: next(times))
    clock = Clock()
    for done in (0, 4, 8, 12, 16):
        clock(ExtractEvent(done, 16, 1))
    assert clock.timed("extract", 9.0, 16) == Pass(4.0, 4, 4.0)


def test_a_pass_of_one_batch_has_the_rate_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("losa.extract.rehearsal.time.perf_counter", lambda: 12.0)
    clock = Clock()
    clock(ExtractEvent(8, 8, 1, "calibrate"))
    assert clock.timed("calibrate", 10.0, 8) == Pass(0.0, 0, 4.0)


def test_the_real_pipeline_is_timed_and_nothing_of_it_stays(tmp_path: Path) -> None:
    data = picture_folder(tmp_path / "d", {"train": 8, "val": 2})
    inputs = gather_inputs(tiny_config(data, tmp_path / "s.zarr", views=2))
    place = tmp_path / "place"
    place.mkdir()
    found = rehearse(inputs, 16, 4, place)
    assert (found.rows, found.shard_rows) == (16, 4)
    # Of the data set, not of what was rehearsed; clean views and others.
    assert (found.calibration_rows, found.kept_rows) == (8, 8)
    assert found.rate > 0
    assert found.close_seconds >= 0
    assert list(place.iterdir()) == []
    assert not inputs.config.store.exists()


def test_what_cannot_be_read_does_not_end_a_rehearsal(tmp_path: Path) -> None:
    data = picture_folder(tmp_path / "d", {"train": 4})
    inputs = gather_inputs(tiny_config(data, tmp_path / "s.zarr"))
    (data / "train/red/000.png").write_bytes(b"no picture")
    found = rehearse(replace(inputs), 12, 4, tmp_path)
    assert found.rows == 12
