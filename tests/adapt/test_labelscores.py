"""Average precision and F1, against the definitions over sorted scores in plain numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from losa.adapt.labelscores import LabelMetrics, LabelSums, multi_hot


def precision_of_one(scores: np.ndarray, truth: np.ndarray) -> float:
    """Sum over distinct scores, from the highest: precision there times the rise of recall."""
    total, recall = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        taken = scores >= threshold
        new = (taken & truth).sum() / truth.sum()
        total += (taken & truth).sum() / taken.sum() * (new - recall)
        recall = new
    return total


def table_of(truth: np.ndarray) -> torch.Tensor:
    rows, classes = truth.shape
    table = np.full((rows, max(1, truth.sum(1).max(initial=0))), classes)
    for row, found in enumerate(truth):
        labels = np.flatnonzero(found)
        table[row, : len(labels)] = labels
    return torch.from_numpy(table)


def scored(logits: np.ndarray, truth: np.ndarray, skipped: int = 0, batch: int = 5) -> LabelMetrics:
    """The last rows cannot be read."""
    sums = LabelSums(table_of(truth), truth.shape[1])
    lines = torch.arange(len(truth))
    readable = len(truth) - skipped
    sums.add_skipped(lines[readable:])
    for first in range(0, readable, batch):
        part = slice(first, min(first + batch, readable))
        sums.add(torch.tensor(logits[part], dtype=torch.float32), lines[part])
    return sums.metrics()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 5), st.floats(0.05, 0.9), st.integers(0, 3),
    st.integers(0, 2**31),
)  # fmt: skip
def test_scores_are_those_of_the_definitions(
    rows: int, classes: int, share: float, skipped: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    skipped = min(skipped, rows)
    # On the steps to which logits are rounded, with ties.
    logits = random.integers(-300, 300, (rows, classes)) / 256 * 4
    truth = random.random((rows, classes)) < share
    found = scored(logits, truth, skipped)
    ranked = logits.copy()
    ranked[rows - skipped :] = -1e9
    present = truth.any(0)
    each = [precision_of_one(ranked[:, y], truth[:, y]) for y in np.flatnonzero(present)]
    assert found.mean_ap == pytest.approx(np.mean(each) if each else 0.0, abs=1e-9)
    guess = ranked > 0
    hits, sizes = (guess & truth).sum(0), guess.sum(0) + truth.sum(0)
    f1 = 2 * hits[present] / sizes[present]
    assert found.macro_f1 == pytest.approx(f1.mean() if len(f1) else 0.0, abs=1e-9)
    micro = 2 * hits.sum() / sizes.sum() if sizes.sum() else 0.0
    assert found.micro_f1 == pytest.approx(micro, abs=1e-9)
    read = slice(0, rows - skipped)
    losses = np.log1p(np.exp(-np.where(truth, logits, -logits)[read]))
    want = losses.mean() if skipped < rows else 0.0
    assert found.loss == pytest.approx(want, rel=1e-5)
    assert (found.rows, found.skipped) == (rows, skipped)


def test_rounding_of_logits_moves_average_precision_by_next_to_nothing() -> None:
    random = np.random.default_rng(3)
    truth = random.random((400, 4)) < 0.2
    logits = random.standard_normal((400, 4)) * 2 + truth * 1.5
    each = [precision_of_one(logits[:, y], truth[:, y]) for y in range(4)]
    assert scored(logits, truth).mean_ap == pytest.approx(np.mean(each), abs=2e-3)


def test_logits_out_of_range_rank_with_the_outermost() -> None:
    truth = np.array([[True], [False], [False]])
    assert scored(np.array([[1e6], [-1e6], [-np.inf]]), truth).mean_ap == 1.0
    assert scored(np.array([[40.0], [50.0], [0.0]]), truth).mean_ap == 0.5


def test_val_chooses_by_mean_average_precision() -> None:
    assert LabelMetrics(0.25, 0.9, 0.9, 0.1, 3, 0).criterion == 0.25


def test_padding_is_no_label() -> None:
    found = multi_hot(torch.tensor([[2, 2], [0, 1]]), 2)
    assert found.tolist() == [[0.0, 0.0], [1.0, 1.0]]


def test_logits_that_are_no_numbers_are_told_by_the_loss_and_break_nothing() -> None:
    truth = np.array([[True, False], [False, True]])
    found = scored(np.array([[np.nan, -np.inf], [np.inf, 2.0]]), truth)
    assert not math.isfinite(found.loss)
    assert found.mean_ap == (0.5 + 1.0) / 2


def test_more_classes_than_are_summed_up_at_once_are_all_in_the_mean() -> None:
    random = np.random.default_rng(3)
    logits, truth = random.standard_normal((12, 70)), random.random((12, 70)) < 0.4
    alone = [scored(logits[:, [y]], truth[:, [y]]).mean_ap for y in range(70) if truth[:, y].any()]
    assert len(alone) > 64
    assert scored(logits, truth).mean_ap == pytest.approx(np.mean(alone))
