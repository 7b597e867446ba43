"""Tables of a page, and its CSV."""

from __future__ import annotations

import csv
import io

from losa.report.markup import Node, written
from losa.report.ranking import CRITERIA, settings_of
from losa.report.tables import (
    config_table,
    costs_table,
    dropped_table,
    ranking_table,
    scores_table,
    trials_csv,
)
from tests.report.made import Page, trial

TRIALS = (
    trial("a", 0.5, test=0.25, config={"rank": 1, "seed": 0}, trainable=1234, flops=2_500_000),
    trial("b", 0.75, test=0.5, config={"rank": 1, "seed": 1}, trainable=1234, seconds=3.0),
    trial("c", None, config={"rank": "<b>", "seed": 0}, reason="diverged, at once"),
)
SETTINGS = settings_of(TRIALS, CRITERIA[0])


def cells(table: Node) -> list[list[str]]:
    return [["".join(cell.itertext()) for cell in row] for row in table.iter("tr")]


def test_a_row_has_values_means_errors_and_costs() -> None:
    heads, first, second = cells(ranking_table(SETTINGS, CRITERIA[0]))
    found = dict(zip(heads, first, strict=True))
    assert found["rank"] == "1"
    assert found["seeds"] == "2"
    assert found["val top1, %"] == "62.50 ± 12.50"
    assert found["test top1, %"] == "37.50 ± 12.50"
    assert found["trainable parameters"] == "1.23 k"
    assert found["training time"] == "3 s"
    assert found["inference of one image"] == "2.5 MFLOPs"
    assert dict(zip(heads, second, strict=True))["seeds"] == "0 of 1"


def test_cells_sort_by_their_values_and_gaps_have_none() -> None:
    page = Page(written(ranking_table(SETTINGS, CRITERIA[0])))
    keys = [each["data-sort"] for each in page.of("td") if "data-sort" in each]
    assert "0.625" in keys
    assert "1234.0" in keys
    assert "" in keys


def test_a_run_has_its_metrics_by_split_and_its_costs() -> None:
    assert cells(scores_table(TRIALS[0])) == [
        ["", "val", "test"], ["top1", "0.5000", "0.2500"], ["loss", "1.0000", "1.0000"],
    ]  # fmt: skip
    assert cells(costs_table(TRIALS[0]))[1:] == [
        ["trainable parameters", "1.23 k"], ["inference of one image", "2.5 MFLOPs"],
    ]  # fmt: skip


def test_a_configuration_and_what_was_dropped_are_said_in_words() -> None:
    assert cells(config_table({"head_lr": None, "mixer_norm": False}))[1:] == [
        ["head lr", "none"], ["mixer norm", "no"],
    ]  # fmt: skip
    assert cells(dropped_table(TRIALS[2:]))[1] == ["c", "0", "0", "diverged, at once"]


def test_the_csv_has_a_line_a_trial_that_reads_back() -> None:
    rows = list(csv.DictReader(io.StringIO(trials_csv(SETTINGS).decode())))
    assert [row["trial"] for row in rows] == ["a", "b", "c"]
    assert [row["setting"] for row in rows] == ["1", "1", "2"]
    assert [row["val_top1"] for row in rows] == ["0.5", "0.75", ""]
    assert rows[1]["seconds"] == "3.0"
    assert rows[2]["reason"] == "diverged, at once"
    assert rows[2]["rank"] == "<b>"
