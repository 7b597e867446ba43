"""Parallel coordinates: a line a setting through its values, to what it reaches on val."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from losa.report.axis import Axis, Number, axis_of
from losa.report.heatmap import ordered, shade, words
from losa.report.markup import Node, add, node
from losa.report.plots import WIDTH, figure, label
from losa.report.ranking import Criterion, Setting, is_number, shown
from losa.store.files import canonical_json

MOST_LINES: Final = 300
"""More lines could not be told apart; the best are drawn."""

FEW_VALUES: Final = 8
"""So many values have a tick each; more numbers than these stand on an axis."""

_GAP, _TOP, _BOTTOM, _HEIGHT, _SIDE = 124, 34, 226, 246, 62


@dataclass(frozen=True, slots=True)
class Pole:
    """One upright axis: its name, where each value stands, and its ticks ``(pixel, words)``."""

    name: str
    heights: dict[bytes, float]
    ticks: tuple[tuple[float, str], ...]

    def height(self, value: object) -> float:
        """The pixel of a value that it was made of."""
        return self.heights[_key(value)]


def parallel(settings: Sequence[Setting], criterion: Criterion) -> Node | None:
    """All swept fields and val; ``None`` where fewer than two fields or settings stand."""
    scores = [(one, one.score("val", criterion.key)) for one in settings]
    found = [(one, score.value) for one, score in scores if score is not None][:MOST_LINES]
    fields = list(settings[0].values) if settings else []
    if min(len(found), len(fields)) <= 1:
        return None
    poles = [pole([one for one, _ in found], field) for field in fields]
    poles.append(_pole_of_val([value for _, value in found], criterion))
    width = 2 * _SIDE + _GAP * (len(poles) - 1)
    told = f"{len(found)} settings as lines from their values to val {criterion.words}"
    box = f"0 0 {width} {_HEIGHT}"
    picture = node("svg", viewBox=box, role="img", aria_label=told, class_="wide", width=width)
    means = [value for _, value in found]
    for place, (setting, value) in reversed(list(enumerate(found))):
        step = shade(value, means, is_higher_better=criterion.is_higher_better)
        kind = "winner" if place == 0 else f"way way{step}"
        add(picture, _way(setting, value, poles, kind))
    for number, each in enumerate(poles):
        add(picture, _upright(each, _SIDE + _GAP * number))
    made = figure(f"all swept fields, and val {criterion.words}; the best is thick", picture)
    if width > WIDTH:
        made.set("class", "span")
    return made


def pole(settings: Sequence[Setting], field: str) -> Pole:
    """The axis of a field: few values stand evenly, many numbers by size or its logarithm.

    What is no number stands below the numbers.
    """
    values = ordered(settings, field)
    if len(values) <= FEW_VALUES or not any(is_number(value) for value in values):
        rungs = Axis(0, max(1, len(values) - 1), _BOTTOM, _TOP)
        heights = [rungs.place(number if len(values) > 1 else 0.5) for number in range(len(values))]
        ticks = (
            zip(heights, map(shown, values), strict=True) if len(values) <= 2 * FEW_VALUES else ()
        )
        return Pole(words(field), dict(zip(map(_key, values), heights, strict=True)), tuple(ticks))
    numbers = [float(value) for value in values if is_number(value)]
    others = [value for value in values if not is_number(value)]
    axis = axis_of(numbers, (_BOTTOM - 24 * bool(others), _TOP), may_log=True)
    places = {_key(value): axis.place(float(value)) for value in values if is_number(value)}
    places |= {_key(value): float(_BOTTOM) for value in others}
    below = [(float(_BOTTOM), ", ".join(map(shown, others)))] if others else []
    numbered = [(axis.place(value), shown(value)) for value in axis.ticks()]
    return Pole(words(field), places, (*numbered, *below))


def _pole_of_val(means: Sequence[float], criterion: Criterion) -> Pole:
    """The last axis, the better end up."""
    ends = (_BOTTOM, _TOP) if criterion.is_higher_better else (_TOP, _BOTTOM)
    axis = axis_of([criterion.shown(value) for value in means], ends)
    heights = {_key(value): axis.place(criterion.shown(value)) for value in means}
    ticks = tuple((axis.place(value), f"{value:g}") for value in axis.ticks())
    unit = f" ({criterion.unit})" if criterion.unit else ""
    return Pole(f"val {criterion.key}{unit}", heights, ticks)


def _way(setting: Setting, value: float, poles: Sequence[Pole], kind: str) -> Node:
    """The line of one setting."""
    stops: list[Any] = [*setting.values.values(), value]
    corners = [
        f"{_SIDE + _GAP * number},{each.height(stop)}"
        for number, (each, stop) in enumerate(zip(poles, stops, strict=True))
    ]
    told = node("title", f"{setting.number}. {setting.name}")
    points = " ".join(corners)
    return node("polyline", told, points=points, class_=kind, data_setting=setting.number)


def _upright(each: Pole, x: Number) -> Node:
    """An axis with its name above it and its ticks to the right."""
    group = node("g", node("line", x1=x, x2=x, y1=_TOP, y2=_BOTTOM, class_="axis"))
    add(group, label(each.name, x, _TOP - 16, "name middle"))
    for y, text in each.ticks:
        add(group, node("line", x1=x - 4, x2=x + 4, y1=y, y2=y, class_="axis"))
        add(group, label(text, x + 7, y + 4, "tick over"))
    return group


def _key(value: object) -> bytes:
    return canonical_json({"": value})
