"""Figures of reliability, against their equations in plain numpy."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from losa.adapt.reliability import ReliabilitySums, equal_mass_ece


def drawn(rows: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, rows)
    return 3 * random.standard_normal((rows, classes)), labels


def shares_of(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(1, keepdims=True)
    return shares


def sums_of(logits: np.ndarray, labels: np.ndarray, batch: int, bins: int = 15) -> ReliabilitySums:
    sums = ReliabilitySums(bins=bins)
    for start in range(0, len(labels), batch):
        part = slice(start, start + batch)
        sums.add(torch.from_numpy(logits[part]), torch.from_numpy(labels[part]))
    return sums


@settings(deadline=None, max_examples=25)
@given(
    rows=st.integers(1, 60),
    classes=st.integers(2, 9),
    batch=st.integers(1, 60),
    bins=st.integers(1, 20),
    seed=st.integers(0, 2**31),
)
def test_ece_brier_and_bins_equal_their_equations(
    rows: int, classes: int, batch: int, bins: int, seed: int
) -> None:
    logits, labels = drawn(rows, classes, seed)
    found = sums_of(logits, labels, batch, bins).reliability()
    shares = shares_of(logits)
    confidence, right = shares.max(1), shares.argmax(1) == labels
    ece = 0.0
    for one, lower in zip(found.bins, np.arange(bins) / bins, strict=True):
        inside = (confidence > lower) & (confidence <= lower + 1 / bins)
        assert one.rows == inside.sum()
        if inside.any():
            assert one.confidence == pytest.approx(confidence[inside].mean(), abs=1e-8)
            assert one.accuracy == pytest.approx(right[inside].mean())
            ece += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert found.ece == pytest.approx(ece, abs=1e-8)
    brier = ((shares - np.eye(classes)[labels]) ** 2).sum(1).mean()
    assert found.brier == pytest.approx(brier)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below_and_one_to_the_last() -> None:
    sums = ReliabilitySums(bins=2)
    sums.add(torch.tensor([[0.0, 0.0], [99.0, -99.0]]), torch.tensor([0, 0]))
    assert [one.rows for one in sums.reliability().bins] == [1, 1]


def test_the_order_of_rows_changes_no_bit_of_ece() -> None:
    logits, labels = drawn(500, 4, 1)
    order = np.random.default_rng(2).permutation(500)
    found = sums_of(logits, labels, 7).reliability()
    assert sums_of(logits[order], labels[order], 64).reliability().bins == found.bins


def test_without_rows_all_is_zero() -> None:
    found = ReliabilitySums().reliability()
    assert (found.ece, found.brier, len(found.bins)) == (0.0, 0.0, 15)
    assert equal_mass_ece(np.zeros(0, np.float32), np.zeros(0, np.bool_)) == 0.0


@pytest.mark.parametrize(("rows", "bins"), [(30, 15), (31, 15), (4, 15), (100, 7)])
def test_equal_mass_bins_have_equally_many_rows(rows: int, bins: int) -> None:
    random = np.random.default_rng(rows)
    confidence = random.uniform(0.2, 1, rows).astype(np.float32)
    right = random.uniform(size=rows) < 0.7
    order = sorted(range(rows), key=lambda row: confidence[row])
    count = min(bins, rows)
    edges = [0]
    for number in range(count):
        edges.append(edges[-1] + rows // count + (number < rows % count))
    want = 0.0
    for lower, upper in pairwise(edges):
        inside = order[lower:upper]
        want += len(inside) / rows * abs(right[inside].mean() - confidence[inside].mean())
    assert equal_mass_ece(confidence, right, bins) == pytest.approx(want, abs=1e-6)


def test_rows_of_one_confidence_may_come_in_any_order() -> None:
    confidence = np.array([1.0] * 6 + [0.5, 0.25], dtype=np.float32)
    right = np.array([True, True, True, False, False, False, True, False])
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(8)
        # Bins of two rows: 0.25 wrong and 0.5 right; then 1.0, of which half are right, thrice.
        want = (abs(0.5 - 0.25) + 3 * 2 * 0.5) / 8
        assert equal_mass_ece(confidence[order], right[order], 4) == pytest.approx(want)
