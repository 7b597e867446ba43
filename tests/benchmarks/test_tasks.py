from __future__ import annotations

import json
from pathlib import Path

import pytest

import losa.adapt.train
from benchmarks import record, tasks
from losa.adapt.report import AdaptReport
from losa.config import AdaptConfig

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


def test_one_seed_has_no_standard_error(bench: tasks.Bench) -> None:
    result = bench.measure("losa", GRID, seeds=1)
    assert result.test_error is None
    assert "± -" in tasks.line(result)


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
    assert tasks.main(["--tasks", "digits", "--adaptors", "losa", "--seeds", "2"]) == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert document == json.loads((tmp_path / "tasks.json").read_text())
    assert [result["adaptor"] for result in document["results"]] == ["losa"]
    assert [setting["lr"] for setting in document["grid"]] == [0.1, 0.2, 0.3]
