"""A suite of tasks as a picture: accuracy by adaptor and task, with error bars over seeds."""

from __future__ import annotations

import io
from collections.abc import Sequence

from benchmarks.suite import Mean, Result, adaptors_of, mean, tasks_of

_ALL = "mean"


def picture(results: Sequence[Result]) -> bytes:
    """A PNG: a group of bars a task, a bar an adaptor, one standard error to either side."""
    # The object interface: pyplot would choose a backend for a screen and keep figures for ever.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    bars = _bars(results)
    groups = [*tasks_of(results), _ALL]
    figure = Figure(figsize=(2 + 1.6 * len(groups), 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    width = 0.85 / len(bars)
    for number, (adaptor, found) in enumerate(bars.items()):
        axes.bar(
            [place + (number - (len(bars) - 1) / 2) * width for place in range(len(groups))],
            [100 * found[group].top1 for group in groups],
            width,
            yerr=[100 * (found[group].error or 0.0) for group in groups],
            error_kw={"elinewidth": 1.5},
            capsize=2,
            label=adaptor,
        )
    axes.axvline(len(groups) - 1.5, color="black", linewidth=0.8)
    axes.set_xticks(range(len(groups)), groups)
    axes.set(ylabel="test top-1 (%)", ylim=(0, 100))
    axes.grid(visible=True, axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside right upper", fontsize=8)
    buffer = io.BytesIO()
    # No version of the library: the same results are the same picture.
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _bars(results: Sequence[Result]) -> dict[str, dict[str, Mean]]:
    """Heights and errors by adaptor and task, the mean over tasks last."""
    bars = {}
    for adaptor in adaptors_of(results):
        own = [result for result in results if result.adaptor == adaptor]
        bars[adaptor] = {result.task: Mean(result.test_top1, result.test_error) for result in own}
        bars[adaptor][_ALL] = mean(own)
    return bars
