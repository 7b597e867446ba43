from __future__ import annotations

import pytest

from benchmarks import verifying
from losa.features import FeatureSpec
from tests.benchmarks.conftest import Published


def test_quick_and_deep_verification_are_timed(
    monkeypatch: pytest.MonkeyPatch, published: Published, toy: FeatureSpec
) -> None:
    monkeypatch.setattr(verifying, "VIT_B", toy)
    argv = ["--shards", "4", "--taps", "2", "--rows", "40", "--rounds", "2"]
    assert verifying.main(argv) == 0
    document = published("verifying")
    assert len(document["quick_seconds"]) == 2
    assert document["bytes"] == 40 * toy.sample_bytes
    assert document["hits"]["quick"] == (min(document["quick_seconds"]) <= 2)
    assert set(document["hits"]) == {"quick", "deep"}
