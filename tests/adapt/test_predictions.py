"""Claims of losa.adapt.predictions: every listed sample in order, read or not."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import torch

from losa.adapt.metrics import MetricSums
from losa.adapt.predictions import Predictions, check_places
from losa.errors import UsageError
from losa.features import Sample

SAMPLES = [Sample(f"k{place}", f"{place}.png", -1) for place in range(5)]


def predicted() -> Predictions:
    found = Predictions(SAMPLES, np.array([4, 1, 3, 0]), np.array([0, 1, 1, 0]), ("a", 'b"c'))
    found.add(np.array([3, 0]), torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
    found.add(np.array([4]), torch.tensor([[0.0, 3.0]]))
    return found


def test_the_table_lists_samples_in_the_data_sets_order_with_gaps_for_the_unread() -> None:
    rows = list(csv.reader(io.StringIO(predicted().csv().decode())))
    shares = [f"{1 / (1 + np.exp(-gap)):.6f}" for gap in (2.0, 1.0, 3.0)]
    assert rows == [
        ["key", "label", "predicted", "probability"],
        ["k0", "a", "a", shares[0]],
        ["k1", 'b"c', "", ""],
        ["k3", 'b"c', 'b"c', shares[1]],
        ["k4", "a", 'b"c', shares[2]],
    ]


def test_confidences_are_of_scored_samples_alone() -> None:
    confidence, right = predicted().confidences()
    np.testing.assert_allclose(confidence, [1 / (1 + np.exp(-gap)) for gap in (1, 2, 3)], rtol=1e-6)
    assert right.tolist() == [True, True, False]


def test_the_predicted_class_is_that_of_the_metrics_where_probabilities_round_to_equal_ones() -> (
    None
):
    logits, labels = torch.tensor([[0.0, 1e-9]]), np.array([1])
    found, sums = Predictions(SAMPLES, np.array([0]), labels, ("a", "b")), MetricSums(2)
    found.add(np.array([0]), logits)
    sums.add(logits, torch.from_numpy(labels))
    assert found.confidences()[1].tolist() == [True]
    assert sums.metrics().top1 == 1.0
    assert sum(one.accuracy for one in sums.reliability().bins) == 1.0


def test_nothing_predicted_is_a_table_of_gaps() -> None:
    none = Predictions(SAMPLES, np.array([1]), np.array([1]), ("a", "b"))
    assert none.csv() == b"key,label,predicted,probability\nk1,b,,\n"
    assert [len(values) for values in none.confidences()] == [0, 0]


@pytest.mark.parametrize(
    ("flag", "place", "message"),
    [
        ("predictions", "gone/p.csv", "--predictions: the folder .*gone does not exist"),
        ("predictions", ".", "--predictions: .* is a folder"),
        ("out", "file", "--out: .*file is a file"),
        ("out", "file/below/it", "--out: .*file is a file"),
    ],
)
def test_places_that_could_not_be_written_are_refused(
    tmp_path: Path, flag: str, place: str, message: str
) -> None:
    (tmp_path / "file").touch()
    places = {"predictions": None, "out": None, flag: tmp_path / place}
    with pytest.raises(UsageError, match=message):
        check_places(**places)
