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
    found = published("memory")["found"]
    assert set(found) == {"write", "read"}
    assert all(found[name]["large"]["peak"] > 2**20 for name in found)


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
