"""Claims of losa.adapt.viewmean: the mean probability of every sample, whatever the batches."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from losa.adapt.viewmean import ViewMean, mean_of


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64))
    shares: np.ndarray = powers / powers.sum(1, keepdims=True)
    return shares


@settings(deadline=None, max_examples=40)
@given(
    counts=st.lists(st.integers(1, 6), min_size=1, max_size=12),
    batch=st.integers(1, 20),
    seed=st.integers(0, 2**31),
)
def test_each_sample_gets_the_mean_probability_of_its_views_once(
    counts: list[int], batch: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    names = random.choice(1000, len(counts), replace=False)
    source = np.repeat(names, counts)
    labels = np.repeat(random.integers(0, 3, len(counts)), counts)
    logits = random.standard_normal((len(source), 3)).astype(np.float32)
    mean = ViewMean(source)
    found_sources, found_shares, found_labels = [], [], []
    for start in range(0, len(source), batch):
        part = slice(start, start + batch)
        samples, means, said = mean.add(
            torch.from_numpy(logits[part]), torch.from_numpy(labels[part])
        )
        found_sources += samples.tolist()
        found_shares += means.softmax(1).tolist()
        found_labels += said.tolist()
    assert found_sources == names.tolist()
    shares = softmax(logits)
    want = [shares[source == name].mean(0) for name in names]
    np.testing.assert_allclose(found_shares, want, atol=1e-6)
    assert found_labels == [labels[source == name][0] for name in names]


def test_means_of_looks_at_one_batch_are_means_of_probabilities() -> None:
    random = np.random.default_rng(0)
    looks = [random.standard_normal((4, 5)).astype(np.float32) for _ in range(3)]
    found = mean_of([torch.from_numpy(look) for look in looks]).exp().numpy()
    np.testing.assert_allclose(found, np.mean([softmax(look) for look in looks], 0), rtol=1e-5)


def test_a_certain_network_is_no_infinite_loss() -> None:
    mean = ViewMean(np.array([3]))
    _, means, _ = mean.add(torch.tensor([[2000.0, 0.0]]), torch.tensor([1]))
    assert bool(means.isfinite().all())
