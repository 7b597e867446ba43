"""Claims of benchmarks.ablationtable."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.ablationtable import Row, line, markdown, marked
from benchmarks.suite import Mean


def row(task: str, variant: str, *by_seed: float) -> Row:
    lower = tuple(value - 0.1 for value in by_seed)
    return Row(task, variant, by_seed, lower, 1.0, 1234, 5.0)


def cells(text: str) -> list[str]:
    return [cell.strip() for cell in text.strip("|").split("|")]


ROWS = [
    row("mnist", "default", 0.50, 0.52),
    row("count", "default", 0.30, 0.34),
    row("mnist", "rank: 2", 0.60, 0.62),
    row("count", "rank: 2", 0.33, 0.35),
]


def test_a_table_of_val_and_one_of_test_have_a_row_a_variant_and_a_column_a_task() -> None:
    _, _, heading, _, default, rank, _, title, *_, last = markdown(ROWS).splitlines()
    assert cells(heading)[:5] == ["variant", "mnist", "count", "mean", "to the default"]
    assert cells(default)[:4] == ["default", "51.00 ± 1.00", "32.00 ± 2.00", "41.50 ± 1.50"]
    assert cells(rank) == [
        *("rank: 2", "61.00 ± 1.00 ↑", "34.00 ± 1.00", "47.50 ± 1.00 ↑", "+6.00", "1,234", "5"),
    ]
    assert title.startswith("Top-1 of test")
    assert cells(last)[1] == "51.00 ± 1.00 ↑"


def test_an_error_of_the_mean_is_that_of_the_seeds_means() -> None:
    first, second = (0.50 + 0.30) / 2, (0.52 + 0.34) / 2
    error = np.std([first, second], ddof=1) / np.sqrt(2)
    assert f"± {100 * error:.2f}" in cells(markdown(ROWS).splitlines()[4])[3]


@pytest.mark.parametrize(("gap", "mark"), [(0.099, ""), (0.101, "↑"), (-0.101, "↓")])
def test_a_mark_needs_two_standard_errors_of_the_difference(gap: float, mark: str) -> None:
    assert marked(Mean(0.5 + gap, 0.03), Mean(0.5, 0.04)) == mark


def test_a_single_seed_marks_nothing() -> None:
    told = markdown([row("count", "default", 0.1), row("count", "rank: 2", 0.9)])
    assert "90.00 ± -" in told
    assert "↑" not in told


def test_a_variant_that_diverged_says_with_which_seeds() -> None:
    found = Row("count", "lr: 1", (0.0, 0.5), (0.0, 0.5), 1.0, 7, 1.0, diverged=(0,))
    assert line(found).endswith("diverged: seeds (0,)")
