"""Claims of losa.live.ridge, held against numpy's own solver, one sample left out at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from losa.live.ridge import kernel, probe

TRAINED, HELD_OUT, WIDTH, CLASSES = 14, 6, 40, 3


def problem() -> tuple[np.ndarray, np.ndarray]:
    """Features and labels; every class is in the part that trains."""
    draw = np.random.default_rng(1)
    labels = np.arange(TRAINED + HELD_OUT) % CLASSES
    features = draw.normal(size=(len(labels), WIDTH)) + 3.0
    features[np.arange(len(labels)), labels] += 2.0
    return features.astype(np.float32), labels


def solved(
    features: np.ndarray, wanted: np.ndarray, asked: np.ndarray, penalty: float
) -> np.ndarray:
    """Scores of ridge regression by numpy, its intercept not penalised."""
    centre, mean = features.mean(0), wanted.mean(0)
    of = features - centre
    square = of.T @ of + penalty * np.eye(of.shape[1])
    weights = np.linalg.solve(square, of.T @ (wanted - mean))
    result: np.ndarray = (asked - centre) @ weights + mean
    return result


def standardised(features: np.ndarray) -> np.ndarray:
    """Features in units of the training part's deviations, over the root of their number."""
    part = features[:TRAINED].astype(np.float64)
    result: np.ndarray = (features - part.mean(0)) / part.std(0) / np.sqrt(features.shape[1])
    return result


@pytest.mark.parametrize("penalty", [1e-3, 0.1, 10.0])
def test_answers_are_those_of_fitting_again_without_each_sample(penalty: float) -> None:
    features, labels = problem()
    wanted = np.eye(CLASSES)[labels]
    gram = kernel(torch.from_numpy(features), TRAINED)
    found = probe(gram, torch.from_numpy(labels), TRAINED, (penalty,))
    scaled = standardised(features)
    unit = float((scaled[:TRAINED] ** 2).sum(1).mean())
    scores = []
    for row in range(len(labels)):
        rest = np.setdiff1d(np.arange(TRAINED), [row])
        scores.append(solved(scaled[rest], wanted[rest], scaled[row : row + 1], penalty * unit)[0])
    errors = ((np.array(scores) - wanted) ** 2).mean(1)
    np.testing.assert_allclose(found.errors.numpy(), errors, rtol=1e-4, atol=1e-6)
    assert found.hits.tolist() == (np.argmax(scores, 1) == labels).tolist()
    assert found.loss == pytest.approx(errors[:TRAINED].mean(), rel=1e-4)


def test_the_penalty_is_the_one_whose_left_out_error_is_least() -> None:
    features, labels = problem()
    gram, asked = kernel(torch.from_numpy(features), TRAINED), torch.from_numpy(labels)
    losses = {penalty: probe(gram, asked, TRAINED, (penalty,)).loss for penalty in (1e-3, 0.1, 9.0)}
    assert probe(gram, asked, TRAINED, tuple(losses)).penalty == min(losses, key=losses.__getitem__)


def test_a_feature_that_never_changes_counts_for_nothing() -> None:
    features, _ = problem()
    constant = np.concatenate([features, np.full((len(features), 1), 7.0, np.float32)], axis=1)
    one = kernel(torch.from_numpy(features), TRAINED) * WIDTH
    other = kernel(torch.from_numpy(constant), TRAINED) * (WIDTH + 1)
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_features_without_any_deviation_give_a_kernel_of_zeros() -> None:
    assert kernel(torch.full((6, 4), 2.5), 4).abs().max() == 0
