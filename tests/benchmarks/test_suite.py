"""Claims of benchmarks.suite."""

from __future__ import annotations

import statistics

import pytest

from benchmarks.suite import Result, line, markdown, mean


def result(task: str, adaptor: str, *by_seed: float, trainable: int = 7) -> Result:
    error = statistics.stdev(by_seed) / len(by_seed) ** 0.5 if len(by_seed) > 1 else None
    top1 = statistics.fmean(by_seed)
    return Result(task, adaptor, top1, error, 0.5, trainable, 1.0, 9, 0.1, 0.1, by_seed)


def test_one_seed_has_no_standard_error() -> None:
    assert "± -" in line(result("a", "losa", 0.5))
    assert mean([result("a", "losa", 0.5), result("b", "losa", 0.7)]).error is None


def test_the_mean_over_tasks_has_the_standard_error_of_its_own_seeds() -> None:
    found = mean([result("a", "losa", 0.5, 0.7), result("b", "losa", 0.7, 0.5)])
    assert found.top1 == pytest.approx(0.6)
    assert found.error == pytest.approx(0.0)


def test_the_table_has_a_row_an_adaptor_and_the_best_mean_comes_first() -> None:
    found = [
        result("mnist", "linear", 0.9, trainable=20),
        result("mnist", "losa", 0.8),
        result("count", "linear", 0.1),
        result("count", "losa", 0.5),
    ]
    heading, _, first, second = markdown(found, {"count", "location"}).splitlines()
    names = "adaptor", "mnist", "count", "mean of all", "mean of rendered", "most parameters"
    assert tuple(cell.strip() for cell in heading.strip("|").split("|")) == names
    assert first == "| losa | 80.00 ± - % | 50.00 ± - % | 65.00 ± - % | 50.00 ± - % | 7 |"
    assert second == "| linear | 90.00 ± - % | 10.00 ± - % | 50.00 ± - % | 10.00 ± - % | 20 |"


def test_the_mean_of_rendered_tasks_is_left_out_where_it_would_say_nothing_new() -> None:
    assert "rendered" not in markdown([result("count", "losa", 0.5)], {"count"})
    assert "rendered" not in markdown([result("mnist", "losa", 0.5)], {"count"})
