from __future__ import annotations

import pytest

from benchmarks.rounds import in_turns, ratio, table, verdict


def test_contenders_take_turns() -> None:
    calls: list[str] = []

    def run(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    times = in_turns({"a": lambda: run("a"), "b": lambda: run("b")}, 2)
    assert calls == ["a", "b", "a", "b"]
    assert times == {"a": [1.0, 3.0], "b": [2.0, 4.0]}


def test_a_table_has_the_best_and_the_median_of_every_contender(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert table({"a": [3.0, 1.0, 2.0]}, 10**9) == {"a": {"best": 1.0, "median": 2.0}}
    assert "1.00 GB/s" in capsys.readouterr().err


def test_a_verdict_names_its_target(capsys: pytest.CaptureFixture[str]) -> None:
    found = verdict("M0", {"best": 0.5, "median": 0.4, "paired": 0.9}, "of the limit", 0.85)
    assert found == {"best": 0.5, "median": 0.4, "paired": 0.9, "target": 0.85, "hit": False}
    line = "M0: 0.50 (median 0.40, paired 0.90) of the limit, target 0.85: miss"
    assert line in capsys.readouterr().err


@pytest.mark.parametrize("target", [0.2, 0.5])
def test_the_best_rounds_decide_whether_a_target_is_hit(target: float) -> None:
    assert verdict("M0", {"best": 0.5, "median": 0.1}, "of the limit", target)["hit"] is True


def test_rounds_that_a_busy_machine_slows_for_both_leave_the_paired_ratio_alone() -> None:
    quiet = {"limit": [1.0, 1.0, 1.0], "ours": [2.0, 2.0, 2.0]}
    busy = {"limit": [1.0, 1.0, 3.0], "ours": [2.0, 6.0, 6.0]}
    assert ratio(quiet, "limit", "ours")["paired"] == 0.5
    assert ratio(busy, "limit", "ours")["paired"] == 0.5
    assert ratio(busy, "limit", "ours")["median"] != 0.5
