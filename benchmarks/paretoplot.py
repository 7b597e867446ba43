"""Methods as points: accuracy against what each costs, four costs side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

COLOURS: Final = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7"),
    *("#e69f00", "#56b4e9", "#000000", "#7f7f7f"),
)
"""Of Okabe and Ito, and a grey; each method has a symbol of its own as well."""

SYMBOLS: Final = "osD^vPX*"


@dataclass(frozen=True, slots=True)
class Row:
    """One method on one task: accuracy in 0..1 over seeds, and costs of its training."""

    method: str
    test_top1: float
    test_error: float | None
    val_top1: float
    trainable: int
    memory_bytes: int
    images_per_second: float
    inference_flops: int
    lr: float
    commits: tuple[str, ...] = ()


PANELS: Final = (
    ("learned parameters", "trainable", 1.0),
    ("training memory (MB)", "memory_bytes", 1e-6),
    ("inference of one image (GFLOPs)", "inference_flops", 1e-9),
    ("training speed (images/s)", "images_per_second", 1.0),
)
"""Words, field of a row, and factor of each cost; of speed more is better, of others less."""


def picture(task: str, rows: Sequence[Row]) -> bytes:
    """A PNG of four panels with one legend, error bars of one standard error."""
    # The object interface: pyplot would choose a backend for a screen and keep figures for ever.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.0 * len(PANELS), 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for axes, (words, field, factor) in zip(panels, PANELS, strict=True):
        for place, row in enumerate(rows):
            _draw(axes, row, factor * getattr(row, field), place)
        values = [factor * getattr(row, field) for row in rows]
        if max(values) > 8 * min(values) > 0:
            axes.set_xscale("log")
        axes.set_xlabel(words)
        axes.grid(visible=True, alpha=0.3)
        axes.set_axisbelow(True)
    panels[0].set_ylabel(f"test top-1 of {task} (%)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(rows), frameon=False)
    buffer = io.BytesIO()
    # No version of the library: the same results are the same picture.
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def line(row: Row) -> str:
    """One row of the table.

    Example:
        >>> line(Row("lora", 0.956, 0.002, 0.95, 154378, 10**9, 20.0, 2 * 10**9, 1e-3))
        'lora       95.60 ± 0.20 %     154,378 weights   1,000 MB    2.00 GFLOPs     20.0 images/s'
    """
    error = "-" if row.test_error is None else f"{100 * row.test_error:.2f}"
    return (
        f"{row.method:10} {100 * row.test_top1:5.2f} ± {error} %  {row.trainable:10,} weights"
        f"  {row.memory_bytes / 1e6:6,.0f} MB  {row.inference_flops / 1e9:6.2f} GFLOPs"
        f"  {row.images_per_second:7.1f} images/s"
    )


def _draw(axes: Any, row: Row, value: float, place: int) -> None:
    """One method: its own colour, its own symbol, its error."""
    axes.errorbar(
        [value],
        [100 * row.test_top1],
        yerr=[100 * (row.test_error or 0.0)],
        fmt=SYMBOLS[place % len(SYMBOLS)],
        color=COLOURS[place % len(COLOURS)],
        markersize=9,
        capsize=3,
        linestyle="none",
        label=row.method,
    )
