from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

import losa.adapt.train
from benchmarks import record, tasks
from losa.adapt.registry import ADAPTORS
from losa.adapt.report import AdaptReport
from losa.config import AdaptConfig
from tests.store.build import small_store

GRID = ((0.1, 0.0), (0.2, 0.0), (0.3, 0.0))


def report(config: AdaptConfig) -> AdaptReport:
    """The largest rate is best on test; 0.1 and 0.2 tie on val, where 0.2 has the lower loss."""
    val = {0.1: (0.8, 1.0), 0.2: (0.8, 0.5), 0.3: (0.7, 0.1)}[config.lr]
    return AdaptReport(
        config={},
        store_id="",
        metrics={
            "val": {"top1": val[0], "loss": val[1]},
            "test": {"top1": config.lr + config.seed / 10},
        },
        parameters={"trainable": 7},
        timing={"seconds": 2.0},
        memory={},
        environment={},
    )


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tasks.Bench:
    monkeypatch.setattr(losa.adapt.train, "adapt", report)
    monkeypatch.setattr(tasks, "UNTUNED", (0.1, 0.0))
    return tasks.Bench("digits", tmp_path / "s.zarr", 100, tmp_path, epochs=3)


def test_the_setting_is_chosen_on_val_and_never_on_test(bench: tasks.Bench) -> None:
    assert bench.measure("losa", GRID, seeds=1).lr == 0.2


def test_the_chosen_setting_is_averaged_over_seeds_with_its_standard_error(
    bench: tasks.Bench,
) -> None:
    result = bench.measure("losa", GRID, seeds=3)
    assert result.test_by_seed == pytest.approx((0.2, 0.3, 0.4))
    assert result.test_top1 == pytest.approx(0.3)
    assert result.test_error == pytest.approx(0.1 / 3**0.5)


@pytest.mark.parametrize("grid", [GRID, GRID[1:], GRID[:1]])
def test_the_default_setting_is_measured_with_all_seeds_even_where_val_chooses_another(
    bench: tasks.Bench, grid: tuple[tuple[float, float], ...]
) -> None:
    result = bench.measure("losa", grid, seeds=2, untuned=True)
    assert result.untuned_by_seed == pytest.approx((0.1, 0.2))
    assert result.lr == (0.1 if grid == GRID[:1] else 0.2)
    assert bench.measure("losa", grid, seeds=2).untuned_by_seed == ()


def test_runs_of_other_epochs_or_another_store_lie_elsewhere(bench: tasks.Bench) -> None:
    seen = []

    def noted(config: AdaptConfig) -> tuple[AdaptReport, str]:
        seen.append(config.out)
        return report(config), ""

    for other in (bench, replace(bench, epochs=4), replace(bench, store=Path("t.zarr"))):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tasks, "train_or_find", noted)
            other.train("losa", GRID[0], 0)
    assert len(set(seen)) == 3


def test_an_unknown_task_costs_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert tasks.main(["--tasks", "digits,dogs"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_last_line_is_the_document_that_is_also_written(
    bench: tasks.Bench,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tasks, "extracted", lambda *_: bench)
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(tasks, "GRIDS", {"small": GRID})
    monkeypatch.setattr(tasks, "picture", lambda _: b"png")
    assert tasks.main(["--tasks", "digits", "--adaptors", "losa", "--seeds", "2"]) == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert document == json.loads((tmp_path / "tasks.json").read_text())
    assert [result["adaptor"] for result in document["results"]] == ["losa"]
    assert document["results"][0]["untuned_by_seed"] == pytest.approx([0.1, 0.2])
    assert [setting["lr"] for setting in document["grid"]] == [0.1, 0.2, 0.3]
    assert "| losa | 25.00 ± 5.00 %" in (tmp_path / "tasks.md").read_text()
    assert (tmp_path / "tasks.png").read_bytes() == b"png"


def test_without_names_every_task_and_every_adaptor_is_run(
    bench: tasks.Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tasks, "extracted", lambda task, _: replace(bench, task=task))
    monkeypatch.setattr(tasks, "GRIDS", {"small": GRID[:1]})
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    assert tasks.main(["--seeds", "1"]) == 0
    document = json.loads((tmp_path / "tasks.json").read_text())
    pairs = [(result["task"], result["adaptor"]) for result in document["results"]]
    assert pairs == list(product(tasks.DATA, ADAPTORS))
    assert set(tasks.DATA) == {"textile", "mnist", "digits", "location", "orientation", "count"}


@pytest.fixture
def toy_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AdaptConfig:
    """A run that is real, on a small store; the commit is the first."""
    store = small_store(tmp_path / "toy.zarr")
    monkeypatch.setattr(tasks, "commit", lambda: "first")
    return AdaptConfig(store=store, out=tmp_path / "run", epochs=2, adaptor="linear")


def test_a_finished_run_is_found_with_its_own_commit_unless_afresh(
    toy_run: AdaptConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, commit = tasks.train_or_find(toy_run)
    monkeypatch.setattr(tasks, "commit", lambda: "second")
    assert tasks.train_or_find(toy_run) == (report, commit) == (report, "first")
    again, commit = tasks.train_or_find(toy_run.model_copy(update={"overwrite": True}))
    assert commit == "second"
    assert again.metrics == report.metrics
    assert again.timing != report.timing


def test_a_run_that_ends_just_before_its_call_is_cut_off_keeps_its_commit(
    toy_run: AdaptConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapt = losa.adapt.train.adapt

    def cut_off(config: AdaptConfig) -> AdaptReport:
        adapt(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(losa.adapt.train, "adapt", cut_off)
    with pytest.raises(KeyboardInterrupt):
        tasks.train_or_find(toy_run)
    monkeypatch.setattr(losa.adapt.train, "adapt", adapt)
    monkeypatch.setattr(tasks, "commit", lambda: "second")
    assert tasks.train_or_find(toy_run)[1] == "first"


def test_a_run_that_nobody_here_has_trained_is_of_no_known_commit(toy_run: AdaptConfig) -> None:
    losa.adapt.train.adapt(toy_run)
    assert tasks.train_or_find(toy_run)[1] == "unknown"


def test_a_run_of_another_configuration_is_replaced(
    toy_run: AdaptConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks.train_or_find(toy_run)
    monkeypatch.setattr(tasks, "commit", lambda: "second")
    report, commit = tasks.train_or_find(toy_run.model_copy(update={"epochs": 3}))
    assert (report.config["epochs"], commit) == (3, "second")


def test_results_name_the_commits_of_the_runs_that_chose_and_made_them(
    bench: tasks.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = iter("cab")
    monkeypatch.setattr(tasks, "train_or_find", lambda config: (report(config), next(commits)))
    assert bench.measure("losa", GRID[:2], seeds=2).commits == ("a", "b", "c")
