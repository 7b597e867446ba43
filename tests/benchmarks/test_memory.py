from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import memory
from losa.features import FeatureSpec
from tests.benchmarks.conftest import Published

ALLOCATE = "x = bytearray(2 ** 27); x[::4096] = x[::4096]; import time; time.sleep(0.2)"


def test_writing_and_reading_are_measured_at_two_sizes(
    monkeypatch: pytest.MonkeyPatch, published: Published, toy: FeatureSpec
) -> None:
    def in_this_process(child: str, folder: Path, rows: int) -> dict[str, int]:
        return memory.CHILDREN[child](folder, rows)

    monkeypatch.setattr(memory, "VIT_B", toy)
    monkeypatch.setattr(memory, "in_child", in_this_process)
    assert memory.main(["--rows", "40", "--times", "2", "--images", "0"]) == 0
    document = published("memory")
    found = document["found"]
    assert set(found) == {"write", "read"}
    assert found["read"]["allowed_bytes"] == 64 * 10**6 + 4 * 32 * toy.sample_bytes
    whats = ("growth", "above_imports")
    assert set(document["hits"]) == {f"{name} {what}" for name in found for what in whats}
    assert all(found[name]["large"]["peak"] > 2**20 for name in found)


@pytest.mark.parametrize(
    ("peak", "growth", "absolute"),
    [(1019, True, True), (1021, False, True), (1200, False, False)],
)
def test_a_case_may_hold_64_mb_and_four_of_its_own_batches(
    peak: int, growth: bool, absolute: bool
) -> None:
    large = {"imports": 928 * 10**6, "peak": peak * 10**6}
    found = memory.compared("read", 10 * 10**6, {"imports": 1, "peak": 10**9}, large)
    assert found["allowed_bytes"] == 104 * 10**6
    assert (found["growth_hit"], found["above_imports_hit"]) == (growth, absolute)


def test_what_the_children_of_a_process_hold_counts_as_its_own() -> None:
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ALLOCATE!r}])"
    assert memory.watch((sys.executable, "-c", parent)) > 2**27


def test_a_command_is_watched_from_outside() -> None:
    assert memory.watch((sys.executable, "-c", ALLOCATE)) > 2**27


def test_a_command_that_fails_is_no_measurement() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        memory.watch((sys.executable, "-c", "raise SystemExit(3)"))


def test_imports_are_what_a_command_is_compared_with() -> None:
    assert memory.after_imports("json") > 2**20


def test_a_process_that_is_gone_holds_nothing() -> None:
    with subprocess.Popen((sys.executable, "-c", "")) as process:
        process.wait()
    assert memory.anonymous(process.pid) == 0


def test_images_of_two_classes_are_drawn(tmp_path: Path) -> None:
    memory.draw(tmp_path, 20)
    assert len(list(tmp_path.glob("train/a/*.png"))) == 8
    assert len(list(tmp_path.glob("val/b/*.png"))) == 2
