"""Claims of losa.extract.statement: an estimate in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from losa.config import ExtractConfig
from losa.extract import statement
from losa.extract.costing import Rates, bill
from losa.extract.estimate import Estimate, estimate, setting_of
from losa.extract.probing import Probe


def priced(tmp_path: Path, rates: Rates | None = None) -> Estimate:
    values = {"model": "vit_g", "dataset": "inat2018", "data_dir": tmp_path}
    found = estimate(ExtractConfig.model_validate(values), budget=10**12)
    if rates is None:
        return found
    probe = Probe(rates, "random", "cpu", 8, 3.0, None, None)
    asked = bill(found.profile, setting_of(found.config), found.counts, rates)
    return replace(found, asked=asked, rates=rates, probe=probe)


def test_the_head_says_what_is_priced_and_who_counted(tmp_path: Path) -> None:
    first, second = statement.head_lines(priced(tmp_path))
    assert "224 x 224 px: 1,011 M parameters, 534 GFLOP an image" in first
    assert second.startswith("inat2018: train 437,513, val 24,426 (its competition's page")


def test_clips_are_priced_as_clips(tmp_path: Path) -> None:
    values = {"model": "vivit_e", "dataset": "k400", "data_dir": tmp_path, "clips": 4, "crops": 3}
    found = estimate(ExtractConfig.model_validate(values))
    first, second = statement.head_lines(found)
    assert first.endswith("3,813 M parameters, 37,893 GFLOP a clip of 32 frames")
    assert second.startswith("k400: train 240,436, val 19,796, 12 views of others (the copy")
    rows = dict(statement.cost_rows(found))
    assert rows["disk must write, read"] == "206 GB/s for every 1,000 clips/s computed"


def test_the_setting_asked_for_comes_first_and_rows_fit_the_columns(tmp_path: Path) -> None:
    found = priced(tmp_path)
    rows = statement.policy_rows(found) + statement.better_rows(found)
    assert {len(row) for row in rows} == {len(statement.COLUMNS)}
    assert rows[0][:5] == ("asked: auto (10)", "all (257)", "float16", "7.24 MB", "3.34 TB")
    assert rows[1][4] == "13.4 TB"
    assert statement.room_line(found) == "fit 1 TB, those that keep most first:"


def test_settings_that_only_keep_less_are_not_said_to_fit(tmp_path: Path) -> None:
    values = {"model": "vivit_e", "dataset": "k400", "data_dir": tmp_path, "taps": "all"}
    found = estimate(ExtractConfig.model_validate(values))
    assert statement.room_line(found) == "keep less, those that keep most first:"
    assert statement.better_rows(found)[0][2:4] == ("int8", "412 MB")


def test_what_nobody_measured_is_said_to_be_unknown(tmp_path: Path) -> None:
    rows = dict(statement.cost_rows(priced(tmp_path)))
    assert rows["disk must write, read"] == "7.24 GB/s for every 1,000 images/s computed"
    assert rows["hours, break-even, predicted time"] == statement.UNKNOWN


def test_what_was_measured_is_told(tmp_path: Path) -> None:
    rates = Rates(750.0, 3000.0, 700.0, 3e9, 7e9, 10**13)
    rows = dict(statement.cost_rows(priced(tmp_path, rates)))
    assert rows["disk must write, read"] == "5.07 GB/s, 5.07 GB/s"
    assert rows["epoch live, from the store"] == "625 s, 452 s"
    assert rows["taps that read as fast as live"] == "13 of 40"
    # 3.34 TB at 3 GB/s take longer to write than 461,939 images to compute.
    paid = 461_939 * 7_237_120 / 3e9 / (437_513 / 700 - 437_513 * 7_237_120 / 7e9)
    assert rows["has paid after"].startswith(f"{paid:.1f} epochs x trials of one head")
    assert rows["from start to seal"] == statement.UNMEASURED


def test_a_disk_that_reads_slowly_never_pays(tmp_path: Path) -> None:
    rows = dict(statement.cost_rows(priced(tmp_path, Rates(750.0, 3e3, 700.0, 3e9, 3e9, 10**13))))
    assert rows["has paid after"].startswith("never")
    assert rows["taps that read as fast as live"] == "5 of 40"
