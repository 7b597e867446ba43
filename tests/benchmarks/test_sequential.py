from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from benchmarks import sequential
from losa.features import FeatureSpec
from tests.benchmarks.conftest import Published


def test_an_epoch_is_timed_warm_and_cold(
    monkeypatch: pytest.MonkeyPatch, published: Published, toy: FeatureSpec
) -> None:
    monkeypatch.setattr(sequential, "VIT_B", toy)
    monkeypatch.setattr(sequential, "read_bytes", count(0, 70 * toy.sample_bytes).__next__)
    monkeypatch.setattr(sequential, "file_system", lambda _: "ext4")
    assert sequential.main(["--rows", "70", "--rounds", "1"]) == 0
    document = published("sequential")
    assert {type(hit) for hit in document["hits"].values()} == {bool}
    assert set(document["warm"]["seconds"]) == set(document["cold"]["seconds"])
    assert set(document["cold"]["share_from_disk"]) == set(document["cold"]["seconds"])


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("ext4", "losa: 0%, 0%, 0% came off the disk"), ("tmpfs", "--dir is a tmpfs")],
)
def test_rounds_that_come_out_of_memory_are_no_cold_ones(
    monkeypatch: pytest.MonkeyPatch,
    published: Published,
    toy: FeatureSpec,
    kind: str,
    reason: str,
) -> None:
    monkeypatch.setattr(sequential, "VIT_B", toy)
    monkeypatch.setattr(sequential, "read_bytes", lambda: 0)
    monkeypatch.setattr(sequential, "file_system", lambda _: kind)
    assert sequential.main(["--rows", "40", "--rounds", "1"]) == 0
    document = published("sequential")
    assert document["cold"] is None
    assert document["cold_reason"].startswith(reason)
    assert document["hits"] == {
        "warm": document["warm"]["losa_to_memmap"]["hit"],
        "cold": None,
        "cold, compared before": None,
    }


def test_the_file_system_of_a_folder_is_known() -> None:
    assert sequential.file_system(Path("/proc")) == "proc"


def test_a_file_system_that_is_not_listed_is_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "mounts").write_text("")
    monkeypatch.setattr(sequential, "MOUNTS", tmp_path / "mounts")
    assert sequential.file_system(tmp_path) == "unknown"


def test_dropping_the_cache_keeps_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"kept")
    sequential.drop_cache(tmp_path)
    assert (tmp_path / "a" / "b").read_bytes() == b"kept"
    assert sequential.read_bytes() >= 0
