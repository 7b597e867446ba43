"""Errors of numbers, against numpy in the numbers' own units."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from losa.adapt.numberscores import NumberMetrics, NumberSums

SCALE = ((40.0, 12.0), (-3.0, 0.5))


def scored(wanted: np.ndarray, said: np.ndarray, kind: str = "mse") -> NumberMetrics:
    """Both in deviations."""
    sums = NumberSums(torch.tensor(wanted).float(), ("age", "height"), SCALE, kind)  # type: ignore[arg-type]  # a parameter
    for first in range(0, len(said), 7):
        lines = torch.arange(first, min(first + 7, len(said)))
        sums.add(torch.tensor(said[lines.numpy()]).float(), lines)
    sums.add_skipped(torch.tensor([0, 0]))
    return sums.metrics()


@pytest.mark.parametrize("kind", ["huber", "mse"])
def test_errors_are_in_the_numbers_own_units(kind: str) -> None:
    random = np.random.default_rng(0)
    wanted, said = random.standard_normal((2, 50, 2)) * 1.7
    found = scored(wanted, said, kind)
    mean, std = np.array(SCALE).T
    truth, guess = wanted * std + mean, said * std + mean
    error = guess - truth
    mae, rmse = np.abs(error).mean(0), np.sqrt((error**2).mean(0))
    r2 = 1 - (error**2).sum(0) / ((truth - truth.mean(0)) ** 2).sum(0)
    assert found.mae == pytest.approx(mae.mean(), rel=1e-5)
    assert found.rmse == pytest.approx(rmse.mean(), rel=1e-5)
    assert found.r2 == pytest.approx(r2.mean(), rel=1e-5)
    assert found.of_each["height"] == pytest.approx(
        {"mae": mae[1], "rmse": rmse[1], "r2": r2[1]}, rel=1e-5
    )
    off = np.abs(said - wanted)
    huber = np.where(off < 1, off**2 / 2, off - 0.5).mean()
    assert found.loss == pytest.approx(huber if kind == "huber" else (off**2).mean(), rel=1e-5)
    assert (found.rows, found.skipped) == (52, 2)
    assert found.criterion == -found.loss


def test_numbers_that_are_all_alike_are_explained_wholly_or_not_at_all() -> None:
    alike = np.full((9, 2), 0.3)
    assert scored(alike, alike).r2 == 1.0
    assert scored(alike, alike + 1).r2 == 0.0


def test_the_mean_of_train_explains_nothing() -> None:
    random = np.random.default_rng(1).standard_normal((40, 2))
    wanted = random - random.mean(0)
    assert scored(wanted, np.zeros((40, 2))).r2 == pytest.approx(0.0, abs=1e-6)


def test_a_split_without_a_readable_row_has_no_errors() -> None:
    found = scored(np.zeros((1, 2)), np.zeros((0, 2)))
    assert (found.mae, found.loss, found.rows, found.skipped) == (0.0, 0.0, 2, 2)
    assert found.r2 == found.of_each["age"]["r2"] == 0.0


def test_rounding_is_not_taken_for_a_spread() -> None:
    # Far from train's mean; the sum of squares keeps less than the spread is.
    alike = np.full((1001, 2), 12_345.678)
    assert scored(alike, alike + 1).r2 == 0.0
