"""Claims of losa.adapt.scoresheet: scores of each class, tables and files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from losa.adapt.metrics import MetricSums
from losa.adapt.predictions import Predictions
from losa.adapt.scoresheet import Evaluation, class_scores
from losa.errors import ResourceError
from losa.features import Sample

CLASSES = ("cat", "dog", "emu", "never")


def evaluation(classes: tuple[str, ...] = CLASSES, rows: int = 60) -> Evaluation:
    """Logits that are often right, of all classes but the last; and two unread cats."""
    random = np.random.default_rng(5)
    labels = random.integers(0, len(classes) - 1, rows)
    logits = random.standard_normal((rows, len(classes))) + 2 * np.eye(len(classes))[labels]
    logits[:, -1] = -9
    samples = [Sample(str(row), "", int(label)) for row, label in enumerate(labels)]
    sums, predictions = (
        MetricSums(len(classes)),
        Predictions(samples, np.arange(rows), labels, classes),
    )
    found = torch.from_numpy(logits).float()
    sums.add(found, torch.from_numpy(labels))
    sums.add_skipped(torch.tensor([0, 0]))
    predictions.add(np.arange(rows), found)
    return Evaluation({"run": "runs/a", "split": "test"}, sums, predictions, classes)


def test_precision_recall_and_f1_follow_from_the_confusion_matrix() -> None:
    found = evaluation()
    counts = np.array(found.result["confusion"])
    for place, one in enumerate(class_scores(found.sums, CLASSES)[:-1]):
        right, said = counts[place, place], counts[:, place].sum()
        support = counts[place].sum() + (2 if place == 0 else 0)
        precision, recall = right / said, right / support
        assert (one.support, one.predicted) == (support, said)
        assert one.precision == pytest.approx(precision)
        assert one.recall == pytest.approx(recall)
        assert one.f1 == pytest.approx(2 * precision * recall / (precision + recall))


def test_a_class_without_rows_and_predictions_has_no_scores() -> None:
    never = class_scores(evaluation().sums, CLASSES)[-1]
    assert (never.precision, never.recall, never.f1, never.support) == (None, None, None, 0)


def test_the_result_has_the_metrics_and_the_facts() -> None:
    result = evaluation().result
    assert {"run", "split", "top1", "loss", "ece", "brier", "ece_equal_mass"} <= set(result)
    assert 0 < result["ece_equal_mass"] < 1


def test_a_screen_gets_small_tables_only() -> None:
    scores, confusion = evaluation().tables()
    assert [row[1] for row in scores[0]] == list(CLASSES)
    assert scores[0][-1][2:] == ("", "", "", 0)
    assert [row[2:] for row in confusion[0]] == [
        tuple(row) for row in evaluation().result["confusion"]
    ]
    assert list(evaluation(tuple(f"c{i}" for i in range(21))).tables()) == []


def test_files_say_the_same_as_the_result(tmp_path: Path) -> None:
    found = evaluation()
    names = found.write(tmp_path / "new/folder")
    out = tmp_path / "new/folder"
    assert sorted(names) == sorted(path.name for path in out.iterdir())
    assert {"classes.csv", "confusion.csv", "reliability.csv"} < set(names)
    with (out / "confusion.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["true", *CLASSES]
    assert [[int(cell) for cell in row[1:]] for row in rows] == found.result["confusion"]
    with (out / "classes.csv").open(newline="") as file:
        scores = {row["class"]: row for row in csv.DictReader(file)}
    assert scores["never"]["f1"] == ""
    recalls = [float(scores[name]["recall"]) for name in CLASSES[:-1]]
    assert np.mean(recalls) == pytest.approx(found.result["mean_per_class"], abs=1e-6)
    with (out / "reliability.csv").open(newline="") as file:
        bins = list(csv.DictReader(file))
    gaps = [
        int(one["rows"]) * abs(float(one["confidence"]) - float(one["accuracy"])) for one in bins
    ]
    assert sum(gaps) / 60 == pytest.approx(found.result["ece"], abs=1e-5)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="below"):
        evaluation().write(tmp_path / "file/below")


def test_more_classes_than_a_matrix_is_kept_for_have_scores_and_no_matrix(tmp_path: Path) -> None:
    found = evaluation(tuple(f"c{i}" for i in range(1001)), rows=20)
    assert "confusion" not in found.result
    assert "confusion.csv" not in found.write(tmp_path)
    assert len((tmp_path / "classes.csv").read_text().splitlines()) == 1002


def test_more_classes_than_a_line_has_room_for_have_their_matrix_in_a_file(tmp_path: Path) -> None:
    found = evaluation(tuple(f"c{i}" for i in range(101)), rows=20)
    assert "confusion" not in found.result
    assert "confusion.csv" in found.write(tmp_path)
