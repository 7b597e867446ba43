"""Claims of benchmarks.paretoplot."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from benchmarks.pareto import ORDER
from benchmarks.paretoplot import COLOURS, PANELS, SYMBOLS, Row, picture


def row(method: str, top1: float = 0.5, cost: int = 100) -> Row:
    return Row(method, top1, 0.01, top1, cost, cost, float(cost), cost, 1e-3)


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"), dtype=np.int64)


def centre(found: np.ndarray, colour: tuple[int, int, int]) -> tuple[float, float]:
    """Row and column of the middle of a colour in the first panel, the legend left out."""
    height, width = found.shape[0] * 4 // 5, found.shape[1] // len(PANELS)
    places = np.argwhere(np.abs(found[:height, :width] - colour).sum(-1) < 10)
    assert len(places) > 20
    mean = places.mean(0)
    return float(mean[0]), float(mean[1])


def test_a_better_method_stands_higher_and_a_dearer_one_further_right() -> None:
    # Two more at the ends of the axes, so that these two are well within their panel.
    ends = [row("lora", 0.5, 10**7), row("vpt", 0.5, 1)]
    rows = [row("full", 0.9, 5000), row("linear", 0.4, 50), *ends]
    found = pixels(picture("digits", rows))
    full, linear = centre(found, (0, 114, 178)), centre(found, (213, 94, 0))
    assert full[0] < linear[0] - 20
    assert full[1] > linear[1] + 20


def test_every_method_has_a_colour_and_a_symbol_of_its_own() -> None:
    assert len(set(COLOURS)) == len(set(SYMBOLS)) == len(ORDER)


def test_the_same_results_are_the_same_picture() -> None:
    rows = [row("full"), row("lora", 0.6)]
    assert picture("digits", rows) == picture("digits", rows)
