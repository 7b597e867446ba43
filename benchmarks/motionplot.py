"""The motion task as a picture: accuracies beside chance, and clips frame by frame."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import UInt8

from benchmarks.motion import CLASSES

_RIGHT, _WRONG = "tab:green", "tab:red"
_BAR: Final = "tab:blue"


@dataclass(frozen=True, slots=True)
class Prediction:
    """A clip, its class, and the class and the probability that the network gives."""

    clip: Path
    wanted: str
    found: str
    probability: float


def picture(bars: Sequence[tuple[str, float]], shown: Sequence[Prediction]) -> bytes:
    """A PNG: a bar an adaptor, its accuracy in 0..1, and below a strip of frames a clip."""
    # The object interface: pyplot would choose a backend for a screen and keep figures for ever.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.5 + 1.25 * len(shown)), layout="constrained")
    FigureCanvasAgg(figure)
    heights = [3.0] + [1.0] * len(shown)
    first, *strips = figure.subplots(len(heights), height_ratios=heights, squeeze=False)[:, 0]
    _draw_bars(first, bars)
    for axes, item in zip(strips, shown, strict=True):
        axes.imshow(np.concatenate(list(read_frames(item.clip)), axis=1))
        axes.set_axis_off()
        said = f"{item.wanted}: predicted {item.found} ({100 * item.probability:.0f} %)"
        colour = _RIGHT if item.found == item.wanted else _WRONG
        axes.set_title(said, loc="left", fontsize=9, color=colour)
    buffer = io.BytesIO()
    # No version of the library: the same results are the same picture.
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()


def read_frames(clip: Path) -> UInt8[np.ndarray, "t h w 3"]:
    """All frames of a clip."""
    import av

    with av.open(str(clip)) as container:
        found = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(found)


def _draw_bars(axes: Any, bars: Sequence[tuple[str, float]]) -> None:
    names, shares = zip(*bars, strict=True)
    drawn = axes.bar(range(len(bars)), [100 * share for share in shares], color=_BAR, width=0.6)
    for bar in drawn:
        # Above the line of chance, which would cross the figures of those that are at it.
        height = max(bar.get_height(), 100 / len(CLASSES)) + 1
        axes.text(bar.get_x() + bar.get_width() / 2, height, f"{bar.get_height():.1f}", ha="center")
    axes.axhline(100 / len(CLASSES), color="black", linewidth=0.8, linestyle="--", label="chance")
    axes.set_xticks(range(len(bars)), names, fontsize=8)
    axes.set(ylabel="test top-1 (%)", ylim=(0, 108))
    axes.legend(loc="upper left", fontsize=8)
