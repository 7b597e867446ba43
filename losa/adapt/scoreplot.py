"""An evaluation as a picture: who is taken for whom, and whether confidence can be believed."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
from jaxtyping import Int64
from torch import Tensor

from losa.adapt.reliability import Reliability

NAMED_CLASSES: Final = 40
"""Names of more classes could not be read."""

COUNTED_CLASSES: Final = 16
"""Counts of more classes would not fit their cells."""

_NAME: Final = 20
_TITLE: Final = 100
_DARK: Final = 0.5
_GAP: Final = "tab:red"

log = logging.getLogger(__name__)


def picture(
    title: str,
    confusion: Int64[Tensor, "y y"] | None,
    classes: Sequence[str],
    reliability: Reliability,
) -> bytes | None:
    """A PNG of confusion matrix and reliability; without matplotlib none, and one line says so.

    Where there are too many classes for a matrix, reliability stands alone.
    """
    if find_spec("matplotlib") is None:
        log.info("no picture: matplotlib is not installed; pip install 'losa[report]'")
        return None
    # The object interface: pyplot would choose a backend for a screen and keep figures for ever.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0 if confusion is None else 11.0, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    side: Any = figure
    if confusion is not None:
        sides: Any = figure.subfigures(1, 2, width_ratios=(1.3, 1.0))
        matrix, side = sides
        _draw_confusion(matrix.subplots(), confusion.numpy(), classes)
    above, below = side.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _draw_reliability(above, below, reliability)
    figure.suptitle(_plain(title, _TITLE), fontsize=10)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Names in a script that the font lacks are boxes here; the tables have them whole.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        # No date and no version of the library: the same result is the same picture.
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _draw_confusion(axes: Any, counts: Int64[np.ndarray, "y y"], classes: Sequence[str]) -> None:
    """Shares of each true class by colour, and where there is room counts and names."""
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues", interpolation="nearest")
    axes.figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    axes.set(xlabel="predicted class", ylabel="true class")
    if len(classes) <= NAMED_CLASSES:
        names = [_plain(name, _NAME) for name in classes]
        size = 9 if len(classes) <= COUNTED_CLASSES else 6
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
        axes.set_yticks(range(len(names)), names, fontsize=size)
    if len(classes) <= COUNTED_CLASSES:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[row, column] > _DARK else "black"
                facts = {"ha": "center", "va": "center", "fontsize": 8, "color": colour}
                axes.text(column, row, str(count), **facts)


def _draw_reliability(axes: Any, below: Any, found: Reliability) -> None:
    """Accuracy of each bin against its confidence, and how many rows each bin has."""
    filled = [one for one in found.bins if one.rows]
    # In the middle of the bin, where the bar is.
    middle = [(one.lower + one.upper) / 2 for one in filled]
    width = 1 / len(found.bins)
    axes.bar(middle, [one.accuracy for one in filled], width, edgecolor="white", label="accuracy")
    axes.plot([0, 1], [0, 1], "--", color="gray", linewidth=1, label="as said")
    confidence = [one.confidence for one in filled]
    axes.plot(confidence, [one.accuracy for one in filled], "o", color=_GAP, markersize=4,
              label="mean confidence")  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    axes.set_title(f"ECE {found.ece:.3f}, Brier {found.brier:.3f}", fontsize=10, pad=24)
    # Above the bars, which may be anywhere.
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    below.bar(middle, [one.rows for one in filled], width, edgecolor="white", color="tab:gray")
    below.set(xlabel="confidence", ylabel="rows")
    for panel in (axes, below):
        panel.grid(visible=True, alpha=0.3)
        panel.set_axisbelow(True)


def _plain(text: str, most: int) -> str:
    r"""Text that matplotlib shows as it is: of so many characters, printable, and no formula.

    Example:
        >>> _plain("a$b\n", 20)
        'a\\$b?'
    """
    shown = "".join(char if char.isprintable() else "?" for char in text)
    short = shown if len(shown) <= most else f"{shown[: most - 1]}…"
    return short.replace("$", r"\$")
