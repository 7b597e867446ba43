"""What a scout found as a picture: accuracy by block, and accuracy against bytes."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Final

_POINTS: Final = 100
_COLOURS: Final = {"cells": "tab:blue", "summary": "tab:gray"}
_ADVICE: Final = "tab:red"

log = logging.getLogger(__name__)


def picture(found: Mapping[str, Any]) -> bytes | None:
    """A PNG of a scout's result; without matplotlib none, and one line says so."""
    if find_spec("matplotlib") is None:
        log.info("no plot: matplotlib is not installed; pip install 'losa[report]'")
        return None
    # The object interface: pyplot would choose a backend for a screen and keep figures for ever.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    blocks, prices = figure.subplots(1, 2)
    _draw_blocks(blocks, found)
    _draw_bytes(prices, found)
    figure.suptitle(f"{found['model']} on {found['dataset']}: {found['advice']['flag']}")
    buffer = io.BytesIO()
    # No date and no version of the library: the same result is the same picture.
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _draw_blocks(axes: Any, found: Mapping[str, Any]) -> None:
    """Accuracy of every single block by each evidence, one standard error to either side."""
    for name, sets in found["looks"].items():
        singles = [one for one in sets if len(one["taps"]) == 1]
        singles.sort(key=lambda one: one["taps"])
        axes.errorbar(
            [one["taps"][0] for one in singles],
            [_POINTS * one["top1"] for one in singles],
            yerr=[_POINTS * one["error"] for one in singles],
            marker="o",
            markersize=4,
            capsize=2,
            color=_COLOURS.get(name),
            label=f"{name} (the evidence)" if name == found["evidence"] else name,
        )
    for tap in found["advice"]["taps"]:
        axes.axvline(tap, color=_ADVICE, alpha=0.25, linewidth=4, zorder=0)
    axes.plot([], [], color=_ADVICE, alpha=0.25, linewidth=4, label="advised taps")
    axes.set(xlabel="block", ylabel="top-1 of a linear probe (%)", title="one block")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8)


def _draw_bytes(axes: Any, found: Mapping[str, Any]) -> None:
    """Accuracy of every set of taps against the bytes of its store, the advice marked."""
    sets, advice = found["looks"][found["evidence"]], found["advice"]
    unit, name = _unit(found["all_bytes"])
    axes.errorbar(
        [one["bytes"] / unit for one in sets],
        [_POINTS * one["top1"] for one in sets],
        yerr=[_POINTS * one["error"] for one in sets],
        fmt="o",
        markersize=4,
        elinewidth=0.6,
        color=_COLOURS.get(found["evidence"]),
        alpha=0.7,
    )
    for one in sets:
        if not one["name"][:1].isdigit():
            place = (one["bytes"] / unit, _POINTS * one["top1"])
            axes.annotate(
                one["name"], place, xytext=(4, -9), textcoords="offset points", fontsize=7
            )
    place = (advice["bytes"] / unit, _POINTS * advice["top1"])
    axes.plot(*place, "*", color=_ADVICE, markersize=14, label=f"advice: {advice['flag']}")
    if found["budget"] is not None:
        axes.axvline(found["budget"] / unit, color="k", linestyle="--", label="budget")
    axes.set(xlabel=f"features ({name})", ylabel="top-1 (%)", title=f"sets, by {found['evidence']}")
    axes.set_xlim(left=0)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")


def _unit(most: int) -> tuple[int, str]:
    """Bytes of the unit that suits so many bytes, and its name.

    Example:
        >>> _unit(13_700_000_000_000), _unit(900)
        ((1000000000000, 'TB'), (1000000, 'MB'))
    """
    return next(
        ((10**power, name) for power, name in ((12, "TB"), (9, "GB")) if most >= 10**power),
        (10**6, "MB"),
    )
