from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import sequential
from losa.features import FeatureSpec
from tests.benchmarks.conftest import Published


def test_an_epoch_is_timed_warm_and_cold(
    monkeypatch: pytest.MonkeyPatch, published: Published, toy: FeatureSpec
) -> None:
    monkeypatch.setattr(sequential, "VIT_B", toy)
    assert sequential.main(["--rows", "70", "--rounds", "1"]) == 0
    document = published("sequential")
    assert set(document["warm"]["seconds"]) == set(document["cold"]["seconds"])
    assert set(document["cold"]["share_from_disk"]) == set(document["cold"]["seconds"])


def test_dropping_the_cache_keeps_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"kept")
    sequential.drop_cache(tmp_path)
    assert (tmp_path / "a" / "b").read_bytes() == b"kept"
    assert sequential.read_bytes() >= 0
