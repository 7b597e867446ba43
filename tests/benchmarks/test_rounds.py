from __future__ import annotations

import pytest

from benchmarks.rounds import in_turns, table, verdict


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
    found = verdict("M0", {"best": 0.5, "median": 0.4}, "of the limit", 0.85)
    assert found == {"best": 0.5, "median": 0.4, "target": 0.85}
    assert "M0: 0.50 (median 0.40) of the limit, target 0.85" in capsys.readouterr().err
