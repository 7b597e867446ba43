"""Claims of losa.adapt.scoreplot."""

from __future__ import annotations

import io
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from losa.adapt import scoreplot
from losa.adapt.metrics import MetricSums


def sums_of(classes: int, rows: int = 40) -> MetricSums:
    random = np.random.default_rng(1)
    labels = torch.from_numpy(random.integers(0, classes, rows))
    sums = MetricSums(classes)
    sums.add(torch.from_numpy(random.standard_normal((rows, classes))), labels)
    return sums


def pixels_of(data: bytes | None) -> np.ndarray:
    assert data is not None
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


@pytest.mark.parametrize("classes", [16, 41])
def test_matrix_and_reliability_stand_side_by_side(classes: int) -> None:
    pytest.importorskip("matplotlib", reason="the extra report is not installed")
    sums, names = sums_of(classes), tuple(f"class $_{i}\n" * 9 for i in range(classes))
    pixels = pixels_of(scoreplot.picture("a $run\x00", sums.confusion(), names, sums.reliability()))
    assert pixels.shape[1] > 1.5 * pixels.shape[0]
    # The mean confidence of the bins is red, and red is nothing else.
    red = (pixels[..., 0] > 200) & (pixels[..., 1] < 60) & (pixels[..., 2] < 60)
    assert red.sum() > 20
    assert not red[:, : pixels.shape[1] // 2].any()


def test_without_a_matrix_reliability_stands_alone() -> None:
    pytest.importorskip("matplotlib", reason="the extra report is not installed")
    sums = sums_of(3)
    pixels = pixels_of(scoreplot.picture("run", None, ("a", "b", "c"), sums.reliability()))
    assert pixels.shape[1] < 1.2 * pixels.shape[0]


def test_names_that_the_font_lacks_cost_no_warning() -> None:
    pytest.importorskip("matplotlib", reason="the extra report is not installed")
    sums = sums_of(2)
    # Warnings are errors in tests.
    pixels_of(scoreplot.picture("run", sums.confusion(), ("猫", "犬"), sums.reliability()))


def test_nothing_evaluated_is_an_empty_picture_and_the_same_every_time() -> None:
    pytest.importorskip("matplotlib", reason="the extra report is not installed")
    sums = MetricSums(2)
    found = [scoreplot.picture("run", None, ("a", "b"), sums.reliability()) for _ in range(2)]
    pixels_of(found[0])
    assert found[0] == found[1]


def test_without_matplotlib_there_is_no_picture_and_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(scoreplot, "find_spec", lambda _: None)
    sums = sums_of(3)
    with caplog.at_level(logging.INFO):
        assert scoreplot.picture("run", None, ("a", "b", "c"), sums.reliability()) is None
    assert [record.message for record in caplog.records] == [
        "no picture: matplotlib is not installed; pip install 'losa[report]'"
    ]
