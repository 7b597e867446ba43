"""``losa report`` as a command."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from losa.adapt.rundir import load_config
from losa.adapt.train import adapt_on
from losa.config import AdaptConfig
from losa.report.trials import read_folder
from tests.adapt.video_store import ordered_store
from tests.command import Losa


@pytest.fixture
def copied(sweep: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sweep, tmp_path / "sweep"))


def test_a_page_and_a_table_lie_in_the_sweep(losa: Losa, copied: Path) -> None:
    result = losa("report", copied)
    assert result.code == 0
    assert result.value["page"] == str(copied / "report.html")
    assert (copied / "report.html").read_text().startswith("<!doctype html>")
    rows = list(csv.reader((copied / "report.csv").read_text().splitlines()))
    assert len(rows) == 1 + 12
    assert (result.value["trials"], result.value["settings"]) == (12, 6)


def test_the_winner_is_the_best_mean_on_val_and_its_command_is_its_own(
    losa: Losa, copied: Path
) -> None:
    found = losa("report", copied).value
    means: dict[tuple[int, float], list[tuple[float, float]]] = {}
    for trial in read_folder(copied).trials:
        key = (trial.config["rank"], trial.config["lr"])
        val = trial.metrics["val"]
        means.setdefault(key, []).append((val["top1"], -val["loss"]))
    best = max(means, key=lambda key: tuple(map(sum, zip(*means[key], strict=True))))
    assert tuple(found["winner"]["setting"].values()) == best
    config = load_config(copied / "trials" / found["winner"]["trial"])
    assert (config.rank, config.lr) == best
    assert found["command"].endswith(f"--out {copied / 'winner'}")


def test_the_page_may_lie_elsewhere_and_its_table_beside_it(
    losa: Losa, sweep: Path, tmp_path: Path
) -> None:
    result = losa("report", sweep / "trials" / "2-0.1-1", "--out", tmp_path / "a.html")
    assert result.value["kind"] == "run"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.html"]
    assert not (sweep / "trials" / "2-0.1-1" / "report.html").exists()


def test_a_second_report_takes_the_place_of_the_first(losa: Losa, copied: Path) -> None:
    before = losa("report", copied).value
    shutil.rmtree(copied / "trials" / before["winner"]["trial"])
    after = losa("report", copied).value
    assert after["trials"] == before["trials"] - 1


def test_a_name_that_cannot_be_a_page_is_refused(losa: Losa, sweep: Path, tmp_path: Path) -> None:
    for out in (tmp_path, tmp_path / "page.csv"):
        result = losa("report", sweep, "--out", out)
        assert (result.code, result.err.count("\n")) == (2, 1)
    result = losa("report", sweep, "--out", tmp_path / "no" / "page.html")
    assert (result.code, result.err.count("\n")) == (6, 1)


def test_a_folder_without_a_run_is_one_line(losa: Losa, tmp_path: Path) -> None:
    result = losa("report", tmp_path)
    assert (result.code, result.err.count("\n")) == (4, 1)


def test_a_run_on_clips_has_a_page_with_what_its_adaptor_computes(
    losa: Losa, tmp_path: Path
) -> None:
    config = AdaptConfig(
        out=tmp_path / "run", device="cpu", rank=2, epochs=1, time_rank=3, clip_frames=2
    )
    adapt_on(ordered_store(), config)
    result = losa("report", tmp_path / "run")
    assert (result.code, result.value["kind"]) == (0, "run")
    (trial,) = read_folder(tmp_path / "run").trials
    # Two steps of four patches and a CLS, 6 channels, two taps; the mean patch, two classes.
    assert trial.flops == 2 * 4 * 6 * 10 * (2 + 2 + 3) + 2 * 6 * 2
    assert trial.config["clip_frames"] == 2
