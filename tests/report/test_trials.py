"""Runs and sweeps read as trials."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from losa.adapt.checkpoint import load_card
from losa.errors import StoreError
from losa.report.flops import adaptor_flops
from losa.report.trials import read_folder
from tests.report.made import RANKS, RATES, SEEDS, write_result


def test_a_sweep_is_all_its_trials(sweep: Path) -> None:
    found = read_folder(sweep)
    assert (found.kind, found.unfinished) == ("sweep", 0)
    assert len(found.trials) == len(RANKS) * len(RATES) * len(SEEDS)
    assert [trial.name for trial in found.trials] == sorted(trial.name for trial in found.trials)


def test_a_trial_has_what_its_run_recorded(sweep: Path) -> None:
    folder = sweep / "trials" / "2-0.01-1"
    report = json.loads((folder / "report.json").read_text())
    (found,) = read_folder(folder).trials
    assert (found.config["rank"], found.seed, found.reason) == (2, 1, None)
    assert found.metrics == report["metrics"]
    assert found.trainable == report["parameters"]["trainable"]
    assert found.seconds == report["timing"]["seconds"]
    assert found.peak_bytes == report["memory"]["peak_bytes"]
    card = load_card(folder)
    assert found.sample_bytes == card.spec.sample_bytes
    assert found.flops == adaptor_flops(card)
    assert [line["epoch"] for line in found.curve] == [1, 2, 3]


def test_a_result_of_a_sweep_wins_over_the_report_beside_it(sweep: Path, tmp_path: Path) -> None:
    copied = tmp_path / "trials" / "1-0.1-0"
    shutil.copytree(sweep / "trials" / "1-0.1-0", copied)
    write_result(copied, metrics={"val": {"top1": 0.125}}, reason="diverged", status="failed")
    (found,) = read_folder(tmp_path).trials
    assert found.metrics == {"val": {"top1": 0.125}}
    assert found.reason == "diverged"
    assert len(found.curve) == 3


def test_trials_without_a_result_are_counted_and_no_more(tmp_path: Path) -> None:
    write_result(tmp_path / "trials" / "done")
    (tmp_path / "trials" / "begun").mkdir()
    found = read_folder(tmp_path)
    assert ([trial.name for trial in found.trials], found.unfinished) == (["done"], 1)


def test_the_line_that_a_dying_process_cut_off_ends_the_curve(tmp_path: Path) -> None:
    folder = tmp_path / "trials" / "cut"
    write_result(folder)
    (folder / "metrics.jsonl").write_bytes(b'{"epoch": 1}\n{"epoch": 2, "tr')
    assert read_folder(tmp_path).trials[0].curve == ({"epoch": 1},)


def test_memory_of_a_device_is_what_counts_where_there_is_one(tmp_path: Path) -> None:
    write_result(tmp_path / "trials" / "a", memory={"peak_bytes": 5, "peak_device_bytes": 7})
    assert read_folder(tmp_path).trials[0].peak_bytes == 7


@pytest.mark.parametrize(
    "changes",
    [{"version": 2}, {"metrics": {"val": 3}}, {"config": None}, {"timing": {"seconds": "long"}}],
)
def test_a_damaged_result_is_one_line(tmp_path: Path, changes: dict[str, object]) -> None:
    write_result(tmp_path / "trials" / "a", **changes)
    with pytest.raises(StoreError, match=r"result\.json: ") as caught:
        read_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_curve_of_something_else_is_damage(tmp_path: Path) -> None:
    folder = tmp_path / "trials" / "a"
    write_result(folder)
    (folder / "metrics.jsonl").write_text("[1]\n")
    with pytest.raises(StoreError, match="no JSON object"):
        read_folder(tmp_path)


def test_a_folder_without_anything_ended_is_refused(sweep: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="neither a run nor a sweep"):
        read_folder(tmp_path)
    (tmp_path / "s" / "trials" / "begun").mkdir(parents=True)
    with pytest.raises(StoreError, match="no trial that has ended"):
        read_folder(tmp_path / "s")
    run = tmp_path / "run"
    shutil.copytree(sweep / "trials" / "1-0.1-0", run)
    (run / "report.json").unlink()
    with pytest.raises(StoreError, match="has not ended yet"):
        read_folder(run)
