"""Claims of benchmarks.pareto."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks import online, pareto, tasks
from benchmarks.onlinetrain import Recipe
from benchmarks.paretocosts import Costs
from losa.adapt.report import AdaptReport
from losa.errors import MismatchError
from tests.benchmarks.conftest import Published

Run = Callable[..., int]


def tuned(_: object, data: object, recipe: Recipe, compute: object) -> dict[str, Any]:
    """What a training of an online method would have recorded."""
    scores = {"top1": recipe.lr, "loss": 1.0}
    return {"val": scores, "test": scores, "trainable": 7, "seconds": 2.0, "seconds_per_epoch": 1.0}


def trained(bench: tasks.Bench, adaptor: str, setting: tuple[float, float], seed: int) -> Any:
    """What a training on the store would have reported."""
    scores = {"top1": len(adaptor) / 10, "loss": 1.0}
    metrics = {"val": scores, "test": scores}
    costs: Any = ({"trainable": 7}, {"seconds": 1.0}, {}, {})
    return AdaptReport({}, "s", metrics, *costs), "commit"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """The command, whose trainings and measurements are what others would have said."""
    nothing: Any = None
    measured: list[str] = []

    def in_child(method: str, *_: Any) -> dict[str, Any]:
        assert method not in measured
        measured.append(method)
        return asdict(Costs(7, 10**6, 50.0, 10**9))

    def opened(task: str, options: Any) -> online.Bench:
        return online.Bench(task, nothing, {}, nothing, options.out, {})

    monkeypatch.setattr(tasks, "DATA", {"digits": lambda _: tmp_path})
    monkeypatch.setattr(pareto, "in_child", in_child)
    monkeypatch.setattr(pareto, "losa", lambda *_: {"bytes": 9})
    monkeypatch.setattr(online, "train", tuned)
    monkeypatch.setattr(online, "opened", opened)
    monkeypatch.setattr(tasks.Bench, "train", trained)

    def call(*argv: str) -> int:
        places = [f"--{name}={tmp_path / name}" for name in ("out", "online-out", "cached-out")]
        what = ("--task", "digits", "--model", "vit_tiny_patch16_224", "--weights", "random",
                "--img-size", "32", "--num-workers", "0", "--device", "cpu", "--seeds", "1",
                "--epochs", "1", "--grid", "default")  # fmt: skip
        return pareto.main([*what, *places, *argv])

    return call


def test_a_second_call_trains_and_measures_nothing_again(
    run: Run, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("--methods", "bitfit,losa-live,losa") == 0
    first = published("pareto")["results"]
    assert [row["method"] for row in first] == ["bitfit", "losa-live", "losa"]
    assert first[1]["test_top1"] == first[2]["test_top1"]
    assert {row["trainable"] for row in first} == {7}
    # in_child refuses to be asked twice.
    assert run("--methods", "bitfit,losa-live,losa") == 0
    assert published("pareto")["results"] == first


def test_a_record_of_another_measurement_is_refused(
    run: Run, capsys: pytest.CaptureFixture[str], published: Published
) -> None:
    assert run("--methods", "linear") == 0
    published("pareto")
    assert run("--methods", "linear", "--cost-images", "3") == MismatchError.exit_code
    assert "is the record of another measurement" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [("--methods", "dogs"), ("--task", "dogs")])
def test_a_mistake_costs_one_line_and_exit_code_2(
    run: Run, capsys: pytest.CaptureFixture[str], flags: tuple[str, str]
) -> None:
    assert run(*flags) == 2
    assert capsys.readouterr().err.count("\n") == 1
