"""Claims of losa.live.scoutplot."""

from __future__ import annotations

import io
import logging
from typing import Any

import numpy as np
import pytest
from PIL import Image

from losa.live import scoutplot


def found(**changes: Any) -> dict[str, Any]:
    """A scout's result, as far as a plot wants it."""
    sets = [
        {"name": name, "taps": taps, "top1": top1, "error": 0.01, "bytes": 10**9 * len(taps)}
        for name, taps, top1 in (("0", [0], 0.4), ("1", [1], 0.8), ("all", [0, 1], 0.8))
    ]
    return {
        "model": "vit",
        "dataset": "made",
        "evidence": "cells",
        "advice": {**sets[1], "flag": "--taps 1"},
        "all_bytes": 2 * 10**9,
        "budget": 10**9,
        "looks": {"summary": sets, "cells": sets},
        **changes,
    }


def test_the_picture_is_a_png_with_something_red_for_the_advice() -> None:
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    data = scoutplot.picture(found())
    assert data is not None
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    red = (pixels[..., 0] > 200) & (pixels[..., 1] < 60) & (pixels[..., 2] < 60)
    assert red[:, pixels.shape[1] // 2 :].sum() > 20
    assert data == scoutplot.picture(found())


def test_without_matplotlib_there_is_no_picture_and_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(scoutplot, "find_spec", lambda _: None)
    with caplog.at_level(logging.INFO):
        assert scoutplot.picture(found()) is None
    assert [record.message for record in caplog.records] == [
        "no plot: matplotlib is not installed; pip install 'losa[report]'"
    ]
