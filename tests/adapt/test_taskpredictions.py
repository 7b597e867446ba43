"""Claims of losa.adapt.taskpredictions: tables of labels and of numbers."""

from __future__ import annotations

import csv
import io

import numpy as np
import torch

from losa.adapt.task import Task
from losa.adapt.taskpredictions import TaskPredictions
from losa.features import Sample

SAMPLES = [Sample(f"k{place}", "", -1) for place in range(4)]
LISTED, LINES = np.array([2, 0, 3]), np.array([7, 5, 8])


def rows_of(found: TaskPredictions) -> list[list[str]]:
    return list(csv.reader(io.StringIO(found.csv().decode())))


def task_of(kind: str, names: tuple[str, ...], lines: torch.Tensor) -> Task:
    """A task whose table has the lines of samples 0 and 2 at 5 and 7, and of 3 at 8."""
    table = torch.zeros(9, *lines.shape[1:], dtype=lines.dtype)
    table[[5, 7, 8]] = lines
    return Task(kind, names, table, np.ones(9, np.bool_), {"test": 5})  # type: ignore[arg-type]  # a literal


def test_several_labels_stand_with_semicolons_and_each_has_its_probability() -> None:
    # 2 stands for no label.
    task = task_of("labels", ("x", "y"), torch.tensor([[0, 1], [2, 2], [1, 2]]))
    found = TaskPredictions(SAMPLES, LISTED, LINES, task=task, scale=())
    found.add(np.array([2]), torch.tensor([[-1.0, -2.0]]))
    found.add(np.array([0]), torch.tensor([[1.0, 0.5]]))
    shares = [f"{1 / (1 + np.exp(-logit)):.6f}" for logit in (1.0, 0.5)]
    assert rows_of(found) == [
        ["key", "label", "predicted", "probability"],
        ["k0", "x;y", "x;y", ";".join(shares)],
        ["k2", "", "", ""],
        ["k3", "y", "", ""],
    ]


def test_numbers_come_back_in_their_own_units() -> None:
    lines = torch.tensor([[1.5, 200.0], [0.5, 100.0], [9.0, 0.0]], dtype=torch.float64)
    task = task_of("numbers", ("a", "b"), lines)
    scale = ((1.0, 2.0), (150.0, 50.0))
    found = TaskPredictions(SAMPLES, LISTED, LINES, task=task, scale=scale)
    found.add(np.array([0, 2]), torch.tensor([[0.25, 1.0], [-1.0, 0.0]]))
    assert rows_of(found) == [
        ["key", "a", "a_predicted", "b", "b_predicted"],
        ["k0", "1.5", "1.5", "200", "200"],
        ["k2", "0.5", "-1", "100", "150"],
        ["k3", "9", "", "0", ""],
    ]


def test_nothing_predicted_is_a_table_of_gaps() -> None:
    task = task_of("labels", ("x", "y"), torch.tensor([[0, 1], [2, 2], [1, 2]]))
    found = TaskPredictions(SAMPLES, LISTED, LINES, task=task, scale=())
    assert rows_of(found)[1] == ["k0", "x;y", "", ""]
