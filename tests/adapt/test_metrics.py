"""The scores, against the same in plain numpy, and whatever the batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from losa.adapt.metrics import MetricSums, SplitMetrics

CLASSES = 7


def sums_of(logits: np.ndarray, labels: np.ndarray, batch: int, classes: int) -> MetricSums:
    sums = MetricSums(classes)
    for start in range(0, len(labels), batch):
        part = slice(start, start + batch)
        sums.add(torch.tensor(logits[part], dtype=torch.float32), torch.tensor(labels[part]))
    return sums


@pytest.fixture(name="scored")
def fixture_scored() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    labels = random.integers(0, CLASSES - 1, 50)  # the last class has no row
    logits = random.standard_normal((50, CLASSES)) + 1.5 * np.eye(CLASSES)[labels]
    return logits, labels


@pytest.mark.parametrize("batch", [1, 8, 50])
def test_metrics_equal_their_definitions(scored: tuple[np.ndarray, np.ndarray], batch: int) -> None:
    logits, labels = scored
    found = sums_of(logits, labels, batch, CLASSES).metrics()
    order = np.argsort(-logits, axis=1)
    right = order[:, 0] == labels
    log_sum = np.log(np.exp(logits).sum(1))
    assert found.top1 == found.top1_readable == right.mean()
    assert found.top5 == (order[:, :5] == labels[:, None]).any(1).mean()
    per_class = [right[labels == c].mean() for c in np.unique(labels)]
    assert found.mean_per_class == pytest.approx(np.mean(per_class))
    assert found.loss == pytest.approx((log_sum - logits[np.arange(50), labels]).mean(), rel=1e-5)
    assert (found.rows, found.skipped) == (50, 0)


def test_confusion_counts_true_against_predicted(scored: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = scored
    want = np.zeros((CLASSES, CLASSES), dtype=int)
    for row, label in zip(logits, labels, strict=True):
        want[label, row.argmax()] += 1
    confusion = sums_of(logits, labels, 8, CLASSES).confusion()
    assert confusion is not None
    np.testing.assert_array_equal(confusion.numpy(), want)


def test_many_classes_get_no_confusion_matrix() -> None:
    assert MetricSums(1001).confusion() is None


def test_skipped_rows_are_wrong_but_not_among_the_readable() -> None:
    sums = MetricSums(2)
    sums.add(torch.tensor([[2.0, 1.0], [2.0, 1.0]]), torch.tensor([0, 0]))
    sums.add_skipped(torch.tensor([0, 1]))
    found = sums.metrics()
    assert (found.top1, found.top1_readable) == (0.5, 1.0)
    assert (found.rows, found.skipped) == (4, 2)
    assert found.mean_per_class == pytest.approx((2 / 3 + 0) / 2)
    assert found.loss == pytest.approx(np.log1p(np.exp(-1.0)), rel=1e-6)


def test_fewer_than_five_classes_make_top5_the_whole() -> None:
    sums = MetricSums(3)
    sums.add(torch.randn(4, 3), torch.tensor([0, 1, 2, 2]))
    assert sums.metrics().top5 == 1.0


def test_an_empty_split_scores_zero() -> None:
    found = MetricSums(3).metrics()
    assert (found.top1, found.loss, found.rows) == (0.0, 0.0, 0)


def test_val_chooses_by_top1() -> None:
    assert SplitMetrics(0.5, 1.0, 0.4, 9.0, 0.6, 10, 0).criterion == 0.5
