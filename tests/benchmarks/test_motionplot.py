"""Claims of ``benchmarks/motionplot.py``."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.motion import write_clip
from benchmarks.motionplot import Prediction, picture, read_frames

pytest.importorskip("matplotlib", reason="the extra report is not installed")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    pixels = np.zeros((4, 32, 32, 3), np.uint8)
    pixels[:, 8:24, 8:24] = (np.arange(4) * 60)[:, None, None, None]
    write_clip(tmp_path / "one.mp4", pixels)
    return tmp_path / "one.mp4"


def test_the_frames_of_a_file_are_read_in_the_order_in_which_they_are_shown(clip: Path) -> None:
    middles = read_frames(clip)[:, 16, 16, 1].astype(int)
    assert np.abs(middles - np.arange(4) * 60).max() < 12


def test_the_picture_depends_on_what_was_predicted_and_on_nothing_else(clip: Path) -> None:
    right = Prediction(clip, "up-left", "up-left", 0.9)
    wrong = Prediction(clip, "up-left", "up-right", 0.9)
    bars = [("linear", 0.08), ("losa", 0.9)]
    drawn = picture(bars, [right, right])
    assert drawn == picture(bars, [right, right])
    assert drawn != picture(bars, [right, wrong])
    assert drawn != picture([("linear", 0.5), ("losa", 0.9)], [right, right])
    with Image.open(io.BytesIO(drawn)) as image:
        assert image.size == (1200, 600)
