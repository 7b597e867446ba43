"""Claims of benchmarks.suiteplot."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from benchmarks.suiteplot import picture
from tests.benchmarks.test_suite import result


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"), dtype=np.int64)


def blue(data: bytes) -> int:
    """Pixels of the first adaptor's colour."""
    return int((np.abs(pixels(data) - (31, 119, 180)).sum(-1) < 10).sum())


def test_a_taller_bar_stands_for_a_higher_accuracy() -> None:
    low, high = (
        picture([result("count", "losa", top1), result("count", "linear", 0.5)])
        for top1 in (0.2, 0.8)
    )
    assert blue(high) > 2 * blue(low)


def test_error_bars_grow_with_the_spread_over_seeds() -> None:
    close, spread = (
        pixels(picture([result("count", "losa", 0.5 - step, 0.5 + step)])) for step in (0.0, 0.3)
    )
    # Above the bar the paper is white but for lines of the grid, which are light.
    dark = [int((found[: len(found) // 2].sum(-1) < 300).sum()) for found in (close, spread)]
    assert dark[1] > dark[0] + 50


def test_the_same_results_are_the_same_picture() -> None:
    found = [result("count", "losa", 0.5, 0.6)]
    assert picture(found) == picture(found)
