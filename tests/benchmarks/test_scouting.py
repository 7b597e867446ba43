from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import losa.adapt.train
from benchmarks import scouting
from benchmarks.tasks import Bench
from losa.adapt.report import AdaptReport
from losa.config import AdaptConfig
from tests.benchmarks.conftest import Published

SCOUT = {
    "evidence": "cells",
    "criterion": "top1",
    "commonest_class": 0.1,
    "advice": {"taps": [5, 11], "share": 0.1667},
    "best": {"taps": [5, 8, 11]},
    "trained": 800,
    "held_out": 200,
}


def report(config: AdaptConfig) -> AdaptReport:
    """All taps reach 80 %, others 79 %; every seed adds one point."""
    top1 = (0.80 if config.taps == "all" else 0.79) + config.seed / 100
    return AdaptReport(
        config={},
        store_id="",
        metrics={"test": {"top1": top1}},
        parameters={},
        timing={"seconds": 2.0},
        memory={},
        environment={},
    )


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """Nothing is scouted, extracted or trained; what was asked of each is listed."""
    asked: list[Any] = []

    def extracted(task: str, options: Any) -> Bench:
        asked.append((task, options.taps))
        return Bench(task, tmp_path / "s.zarr", 100, tmp_path, epochs=1)

    monkeypatch.setattr(losa.adapt.train, "adapt", report)
    monkeypatch.setattr(scouting, "extracted", extracted)
    monkeypatch.setattr(scouting, "scouted", lambda *_: (SCOUT, 9.0))
    return asked


def test_both_sets_are_trained_on_one_store_of_all_taps_and_a_miss_is_a_miss(
    stubbed: list[Any], published: Published, tmp_path: Path
) -> None:
    assert scouting.main(["--tasks", "location", "--out", str(tmp_path)]) == 0
    (result,) = published("scouting")["results"]
    assert stubbed == [("location", "all")]
    assert result["every"]["by_seed"] == pytest.approx([0.80, 0.81, 0.82])
    assert result["advised"]["taps"] == "5,11"
    assert result["behind"] == pytest.approx(0.01)
    assert result["hits"] == {"top1": False, "bytes": True}


def test_an_unknown_task_costs_one_line_and_exit_code_2(
    stubbed: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert scouting.main(["--tasks", "none"]) == 2
    assert "--tasks: 'none' is unknown" in capsys.readouterr().err
