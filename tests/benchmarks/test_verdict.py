"""Claims of benchmarks.verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import verdict as module
from benchmarks.suite import Mean
from benchmarks.verdict import (
    SUITE,
    Line,
    Measured,
    ahead,
    best_mean,
    gap,
    main,
    markdown,
    measured,
    share_of,
    untuned,
)
from tests.benchmarks.conftest import Published

RNG = np.random.default_rng(0)


def scores(level: float, tasks: tuple[str, ...] = SUITE, seeds: int = 3) -> dict[str, Any]:
    """Accuracies about a level, other ones for every task and seed."""
    return {task: tuple((level + RNG.normal(0, 0.01, seeds)).tolist()) for task in tasks}


def found(**changes: Any) -> Measured:
    values: dict[str, Any] = {
        "adaptors": {
            "losa": scores(0.8),
            "linear": scores(0.4),
            "linear-all": scores(0.6),
            "lst": scores(0.7),
        },
        "parameters": {"losa": 40_000, "linear": 9_000, "linear-all": 36_000, "lst": 90_000},
        "untuned": scores(0.795),
        "settings": 3,
        "full": scores(0.9),
    }
    return Measured(**{**values, **changes})


def mean_and_error(given: dict[str, Any], tasks: tuple[str, ...]) -> tuple[float, float]:
    """In plain numpy: of the mean over tasks, by seed."""
    by_seed = np.array([given[task] for task in tasks]).mean(0)
    return float(by_seed.mean()), float(by_seed.std(ddof=1) / np.sqrt(len(by_seed)))


def test_losa_is_held_against_the_best_other_adaptor() -> None:
    given = found()
    line = best_mean(given, ["linear", "linear-all", "lst"])
    ours, error = mean_and_error(dict(given.adaptors["losa"]), SUITE)
    theirs, other = mean_and_error(dict(given.adaptors["lst"]), SUITE)
    assert "lst" in line.name
    assert line.value == pytest.approx(ours - theirs)
    assert line.error == pytest.approx(np.hypot(error, other))
    assert (line.hit, line.missing) == (True, ())
    assert set(line.details["by_rival"]) == {"linear", "linear-all", "lst"}


def test_a_rival_of_more_parameters_is_named_and_does_not_count() -> None:
    given = found()
    parameters = {**given.parameters, "lst": 500_001}
    line = best_mean(found(parameters=parameters), ["linear", "lst"])
    assert "linear" in line.name
    assert line.details["above_parameters"] == {"lst": 500_001}
    assert line.missing == ()


def test_a_rival_that_is_ahead_is_a_miss() -> None:
    adaptors = {"losa": scores(0.8), "lst": scores(0.85)}
    line = best_mean(found(adaptors=adaptors), ["lst"])
    assert line.hit is False
    assert line.value is not None
    assert line.value < 0


def test_an_adaptor_that_was_not_measured_is_missing() -> None:
    assert best_mean(found(), ["lst", "attentive"]).missing == ("adaptor attentive",)


def test_a_lead_is_that_on_the_rendered_tasks_alone() -> None:
    rendered = ("location", "orientation", "count")
    linear = {**scores(0.79), **scores(0.4, rendered)}
    line = ahead(found(adaptors={"losa": scores(0.8), "linear": linear}), "linear", 0.3)
    assert line.tasks == rendered
    assert line.value == pytest.approx(0.4, abs=0.05)
    assert line.hit is True
    assert ahead(found(), "linear-all", 0.3).hit is False


def test_a_share_of_a_gap_is_that_of_the_means_with_an_error_as_by_simulation() -> None:
    share, error = share_of(Mean(0.4, 0.02), Mean(0.8, 0.01), Mean(0.9, 0.015))
    drawn = RNG.normal([0.4, 0.8, 0.9], [0.02, 0.01, 0.015], (200_000, 3)).T
    simulated = (drawn[1] - drawn[0]) / (drawn[2] - drawn[0])
    assert share == pytest.approx(0.8)
    assert error == pytest.approx(simulated.std(), rel=0.05)
    assert share_of(Mean(0.9, 0.0), Mean(0.8, 0.0), Mean(0.9, 0.0)) == (None, None)


def test_the_gap_is_told_for_the_mean_and_for_each_task() -> None:
    line = gap(found(), 0.8)
    assert line.value == pytest.approx(0.8, abs=0.05)
    assert set(line.details["by_task"]) == set(SUITE)
    one = line.details["by_task"]["count"]
    by_hand = (one["losa"] - one["linear"]) / (one["full"] - one["linear"])
    assert one["share"] == pytest.approx(by_hand)
    assert gap(found(), 0.7).hit is True
    assert gap(found(), 0.9).hit is False


def test_where_full_fine_tuning_is_not_ahead_there_is_no_gap_to_close() -> None:
    line = gap(found(full=scores(0.3)), 0.8)
    assert (line.value, line.hit) == (None, None)
    assert line.missing == ("full fine-tuning ahead of linear",)


def test_tuning_is_compared_seed_by_seed() -> None:
    losa = scores(0.8)
    # Half a point lower for each seed: no error though the seeds spread.
    given = found(
        adaptors={"losa": losa},
        untuned={task: tuple(value - 0.005 for value in by) for task, by in losa.items()},
    )
    line = untuned(given, 0.01)
    assert line.value == pytest.approx(0.005)
    assert line.error == pytest.approx(0.0, abs=1e-12)
    assert line.hit is True
    assert untuned(given, 0.001).hit is False
    alone = untuned(found(settings=1), 0.01)
    assert (alone.hit, alone.missing[0]) == (None, "a grid of more than the default setting")


def test_part_of_the_tasks_is_judged_and_says_what_is_missing() -> None:
    given = found(full=scores(0.9, ("digits", "count"), seeds=2), online="")
    line = gap(given, 0.5)
    assert line.tasks == ("digits", "count")
    assert line.hit is True
    assert line.missing == ("tasks textile, mnist, location, orientation", "3 seeds, not 2")
    told = markdown([line])
    assert "| yes, in part | digits, count |" in told


def test_what_nobody_measured_is_neither_met_nor_missed() -> None:
    nothing = Measured({}, {}, {}, 3, {}, "results of `online`")
    for line in module.verdict(nothing, ("losa", "linear")):
        assert (line.value, line.error, line.hit, line.tasks) == (None, None, None, ())
        assert line.missing
    assert "not measured" in markdown(module.verdict(nothing, ("losa", "linear")))


def test_a_table_tells_points_in_percent_and_shares_as_they_are() -> None:
    lines = [
        Line("LoSA over linear", "30 or more", 0.3123, 0.01, True, ("count",)),
        Line("share of the gap", "0.8 or more", 0.8123, None, True, ("count",)),
    ]
    told = markdown(lines)
    assert "| 31.23 ± 1.00 | yes |" in told
    assert "| 0.812 | yes |" in told


def row(name: str, key: str, level: float, task: str) -> dict[str, Any]:
    by_seed = [level, level + 0.01]
    untuned = {"untuned_by_seed": [level - 0.02, level - 0.01]} if name == "losa" else {}
    return {key: name, "task": task, "trainable": 7, "test_by_seed": by_seed, **untuned}


def written(folder: Path, name: str, rows: list[dict[str, Any]], size: int = 112) -> Path:
    value = {"benchmark": name, "commit": "abc", "img_size": size, "grid": [1, 2], "results": rows}
    path = folder / f"{name}.json"
    path.write_text(json.dumps(value))
    return path


@pytest.mark.parametrize("size", [112, 224])
def test_a_command_joins_both_documents_where_their_pictures_are_of_one_size(
    published: Published, tmp_path: Path, size: int
) -> None:
    levels = {"losa": 0.8, "linear": 0.4, "linear-all": 0.5}
    suite = [row(name, "adaptor", levels[name], "count") for name in levels]
    online = [row("full", "method", 0.9, "count"), row("lora", "method", 0.95, "count")]
    paths = written(tmp_path, "tasks", suite), written(tmp_path, "online", online, size)
    assert main(["--suite", str(paths[0]), "--online", str(paths[1])]) == 0
    document = published("verdict")
    assert document["sources"]["tasks"]["commit"] == "abc"
    lines = document["lines"]
    assert [line["hit"] for line in lines] == [True, True, True, [None, True][size == 112], False]
    assert lines[3]["value"] == (pytest.approx(0.8) if size == 112 else None)
    assert ("`online` at 112 px, not 224" in lines[3]["missing"]) == (size == 224)
    assert lines[4]["value"] == pytest.approx(0.02)
    assert (tmp_path / "results" / "verdict.md").read_text().startswith("| statement |")


def test_without_online_the_gap_is_missing_and_without_the_suite_all_is(
    published: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, "tasks", [row("losa", "adaptor", 0.8, "count")])
    argv = ["--suite", str(path), "--online", str(tmp_path / "none.json")]
    assert main(argv) == 0
    assert "results of `online`" in published("verdict")["lines"][3]["missing"]
    assert main(["--suite", str(tmp_path / "none.json")]) == 3
    assert "does not exist" in capsys.readouterr().err
    path = written(tmp_path, "online", [row("full", "method", 0.8, "count")])
    assert main(["--suite", str(path)]) == 3
    assert "holds no results of tasks" in capsys.readouterr().err


def test_full_fine_tuning_that_was_not_asked_for_is_missing() -> None:
    suite = {"img_size": 112, "grid": [], "results": [row("losa", "adaptor", 0.8, "count")]}
    online = {"img_size": 112, "results": [row("lora", "method", 0.8, "count")]}
    assert measured(suite, online).online == "full fine-tuning in `online`"
