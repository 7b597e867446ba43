from __future__ import annotations

import numpy as np
import pytest

from benchmarks import mixing
from tests.benchmarks.conftest import Published


def test_losa_mixes_and_sequential_reading_does_not(published: Published) -> None:
    argv = ["--classes", "50", "--samples", "64", "--batch-size", "16", "--epochs", "2"]
    assert mixing.main(argv) == 0
    document = published("mixing")
    found = document["of_iid"]
    assert document["hits"] == {"of_iid": found[mixing.LOSA]["least"] >= 0.98}
    assert found[mixing.LOSA]["least"] > 0.95
    assert found["sequential"]["mean"] < 0.1


def test_the_expectation_is_that_of_drawing_at_random() -> None:
    listed = np.repeat(np.arange(20), 10)
    generator = np.random.default_rng(0)
    drawn = [mixing.distinct(generator.permutation(listed), 8) for _ in range(400)]
    assert mixing.expectation(20, 10, 8) == pytest.approx(float(np.mean(drawn)), rel=5e-3)


@pytest.mark.parametrize("name", mixing.orders(np.zeros(1200)))
def test_every_order_is_a_permutation(name: str) -> None:
    order = mixing.orders(np.zeros(1200))[name](1)
    assert np.array_equal(np.sort(order), np.arange(1200))
