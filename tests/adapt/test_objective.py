"""Losses of the tasks and their weights, against the equations in plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from losa.adapt.objective import (
    ClassObjective,
    LabelsObjective,
    Mixing,
    NumbersObjective,
    class_weights,
    objective_of,
    positive_weights,
)
from losa.adapt.partition import partition
from losa.adapt.task import with_task
from losa.config import AdaptConfig
from tests.adapt.memory_store import separable_store, with_several_labels

CPU = torch.device("cpu")
RANDOM = np.random.default_rng(5)
LOGITS = RANDOM.standard_normal((6, 3))
OTHERS = np.array([3, 0, 1, 5, 4, 2])
MIXING = Mixing(0.7, torch.from_numpy(OTHERS))


def tensor(values: np.ndarray) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


@pytest.mark.parametrize("mixing", [None, MIXING])
def test_weighted_cross_entropy_is_the_mean_of_weighted_samples(mixing: Mixing | None) -> None:
    labels, weights = np.array([0, 2, 2, 1, 0, 2]), np.array([0.5, 3.0, 1.0])
    objective = ClassObjective(3, smoothing=0.1, weights=tensor(weights), device=CPU)
    logs = LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True))

    def each(wanted: np.ndarray) -> np.ndarray:
        smoothed = np.eye(3)[wanted] * 0.9 + 0.1 / 3
        found: np.ndarray = -weights[wanted] * (smoothed * logs).sum(1)
        return found

    want = each(labels)
    if mixing is not None:
        want = 0.7 * want + 0.3 * each(labels[OTHERS])
    found = objective.loss(tensor(LOGITS), torch.from_numpy(labels), mixing)
    assert float(found) == pytest.approx(want.mean(), rel=1e-5)


def test_without_weights_a_class_loss_is_torchs_own_to_the_bit() -> None:
    labels = torch.tensor([0, 2, 2, 1, 0, 2])
    found = ClassObjective(3, smoothing=0.2, device=CPU).loss(tensor(LOGITS), labels)
    assert torch.equal(found, cross_entropy(tensor(LOGITS), labels, label_smoothing=0.2))


@pytest.mark.parametrize("mixing", [None, MIXING])
def test_labels_have_a_binary_cross_entropy_each(mixing: Mixing | None) -> None:
    table = torch.tensor([[0, 1], [2, 3], [3, 3], [1, 2]])
    hot = np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0], [0, 1, 1]], "f8")
    lines, weights = np.array([3, 0, 2, 1, 1, 0]), np.array([1.0, 4.0, 0.25])
    objective = LabelsObjective(table, 3, smoothing=0.2, weights=tensor(weights), device=CPU)
    wanted = hot[lines]
    if mixing is not None:
        wanted = 0.7 * wanted + 0.3 * wanted[OTHERS]
    wanted = 0.8 * wanted + 0.2 / 3
    yes, no = np.log1p(np.exp(-LOGITS)), np.log1p(np.exp(LOGITS))
    want = (weights * wanted * yes + (1 - wanted) * no).mean()
    found = objective.loss(tensor(LOGITS), torch.from_numpy(lines), mixing)
    assert float(found) == pytest.approx(want, rel=1e-5)


def test_one_label_of_one_class_is_smoothed_between_its_two_outcomes() -> None:
    objective = LabelsObjective(torch.tensor([[0], [1]]), 1, smoothing=0.2, device=CPU)
    for logit, label, wanted in ((0.7, 0, 0.9), (-1.3, 1, 0.1)):
        want = wanted * np.log1p(np.exp(-logit)) + (1 - wanted) * np.log1p(np.exp(logit))
        found = objective.loss(torch.tensor([[logit]]), torch.tensor([label]))
        assert float(found) == pytest.approx(want, rel=1e-5)


def test_smoothing_adds_as_much_to_many_labels_as_to_one_class() -> None:
    # The loss falls no further where probabilities are the smoothed targets.
    y = 80
    objective = LabelsObjective(torch.tensor([[3, y]]), y, smoothing=0.1, device=CPU)
    logits = torch.zeros(1, y, requires_grad=True)
    with torch.no_grad():
        floor = 0.1 / y
        logits += np.log(floor / (1 - floor))
        logits[0, 3] = np.log((0.9 + floor) / (0.1 - floor))
    objective.loss(logits, torch.tensor([0])).backward()  # type: ignore[no-untyped-call]  # torch's stubs
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) < 1e-8
    assert float(logits.detach().sigmoid().sum()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("kind", ["huber", "mse"])
@pytest.mark.parametrize("mixing", [None, MIXING])
def test_numbers_are_compared_in_deviations(kind: str, mixing: Mixing | None) -> None:
    values = RANDOM.standard_normal((4, 3)) * [1.0, 50.0, 1e-3] + [1e6, 0.0, 2.0]
    mean, std = values.mean(0), values.std(0)
    scale = tuple(zip(mean.tolist(), std.tolist(), strict=True))
    objective = NumbersObjective(
        torch.tensor(values), "abc", scale=scale, kind=kind, device=CPU  # type: ignore[arg-type]  # a parameter
    )  # fmt: skip
    lines = np.array([3, 0, 2, 1, 1, 0])
    wanted = ((values - mean) / std)[lines]
    if mixing is not None:
        wanted = 0.7 * wanted + 0.3 * wanted[OTHERS]
    off = np.abs(LOGITS - wanted)
    want = off**2 if kind == "mse" else np.where(off < 1, off**2 / 2, off - 0.5)
    found = objective.loss(tensor(LOGITS), torch.from_numpy(lines), mixing)
    assert float(found) == pytest.approx(want.mean(), rel=1e-5)


@pytest.mark.parametrize("kind", ["balanced", "effective"])
def test_class_weights_are_one_over_an_amount_and_one_on_average(kind: str) -> None:
    counts = np.array([900, 90, 9, 0])
    found = class_weights(torch.from_numpy(counts), kind)  # type: ignore[arg-type]  # a parameter
    assert found is not None
    worth = counts if kind == "balanced" else (1 - 0.999**counts) / 0.001
    ratio = found[:3].numpy() * worth[:3]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)
    assert float(found[3]) == 0.0
    assert (found.numpy() * counts).sum() / counts.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("several", [False, True])
def test_views_of_a_sample_do_not_make_its_classes_commoner(several: bool) -> None:
    losses = []
    for views in (1, 3):
        store = separable_store({"train": 90, "val": 30}, views=views)
        found = with_task(with_several_labels(store) if several else store)
        train = partition(found, val_fraction=0.1, seed=0).train
        row = int(np.flatnonzero(train.split.source_index == 2)[0])
        config = AdaptConfig(class_weights="effective")
        label = torch.tensor([int(train.split.labels[row])])
        aim = objective_of(found, config, (), CPU, train)
        losses.append(float(aim.loss(torch.full((1, 4), 0.3), label)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_effective_weights_lie_between_none_and_balanced() -> None:
    counts = torch.tensor([5000, 50])
    balanced, effective = (class_weights(counts, kind) for kind in ("balanced", "effective"))
    assert balanced is not None
    assert effective is not None
    assert 1 < effective[1] / effective[0] < balanced[1] / balanced[0]
    assert class_weights(counts, "none") is None
    assert positive_weights(counts, 5050, "none") is None


def test_positive_terms_weigh_as_much_as_negative_ones() -> None:
    positives = torch.tensor([10, 90, 0, 100])
    found = positive_weights(positives, 100, "balanced")
    assert found is not None
    assert found.tolist() == pytest.approx([9.0, 1 / 9, 1.0, 1.0])
