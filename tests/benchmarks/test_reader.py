from __future__ import annotations

import pytest

from benchmarks import reader
from losa.features import FeatureSpec
from tests.benchmarks.conftest import Published


def test_every_contender_stands_in_one_table(
    monkeypatch: pytest.MonkeyPatch, published: Published, toy: FeatureSpec
) -> None:
    monkeypatch.setattr(reader, "VIT_B", toy)
    assert reader.main(["--rows", "64", "--rounds", "1"]) == 0
    document = published("reader")
    assert {"losa", "copy from RAM", "zarr oindex"} < set(document["seconds"])
    assert document["epoch_bytes"] == 64 * 4 * 5 * 8 * 2
    assert document["ratios"]["losa_to_oindex"]["best"] > 0
    assert set(document["hits"]) == {"losa_to_ram_copy", "losa_to_oindex"}
