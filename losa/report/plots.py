"""Lines and points as SVG: axes with units, and a colour, a dash and words for each series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from losa.report.axis import Axis, Number, axis_of, tick_text
from losa.report.markup import Node, add, node

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 12, 46
SERIES: Final = 6
"""Series with a colour of their own; further ones are grey."""

_LEGEND: Final = 17
_NAME: Final = 60


@dataclass(frozen=True, slots=True)
class Series:
    """A line ``(x, y)`` through points; ``setting`` ties it to a row of the ranking."""

    name: str
    points: tuple[tuple[float, float], ...]
    setting: int


@dataclass(frozen=True, slots=True)
class Point:
    """A mean with its standard error; ``told`` is what a hand above it reads."""

    x: float
    y: float
    error: float | None
    told: str
    setting: int
    is_front: bool = False


@dataclass(frozen=True, slots=True)
class Labels:
    """A title, and what the axes are called and measured in; ``unit`` is of numbers along x."""

    title: str
    x: str
    y: str
    unit: str = ""


def lines(labels: Labels, series: Sequence[Series]) -> Node:
    """A figure of lines over whole numbers; the first have colours and words, the others grey."""
    xs = [x for one in series for x, _ in one.points]
    x_axis = Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    y_axis = axis_of([y for one in series for _, y in one.points], (HEIGHT - BOTTOM, TOP))
    named = series[:SERIES] if len(series) > 1 else []
    picture = _sheet(labels, HEIGHT + 6 + _LEGEND * len(named))
    ticks = [value for value in x_axis.ticks() if value == round(value)]
    _frame(picture, labels, (x_axis, y_axis), ticks)
    for place, one in reversed(list(enumerate(series))):
        # A line of one point has no length, and its round ends are what is seen of it.
        points = one.points * 2 if len(one.points) == 1 else one.points
        steps = " ".join(f"{x_axis.place(x)},{y_axis.place(y)}" for x, y in points)
        kind = f"line s{place}" if place < SERIES else "line other"
        told = node("title", one.name)
        add(picture, node("polyline", told, points=steps, class_=kind, data_setting=one.setting))
    for place, one in enumerate(named):
        y = HEIGHT + 8 + _LEGEND * place
        sample = node("line", x1=10, x2=46, y1=y, y2=y, class_=f"line s{place}")
        words = label(_short(one.name), 54, y + 4, "legend")
        add(picture, node("g", sample, words, data_setting=one.setting))
    return figure(labels.title, picture)


def points(labels: Labels, found: Sequence[Point]) -> Node:
    """A figure of points with error bars, those of the front filled and joined by steps."""
    x_axis = axis_of([point.x for point in found], (LEFT, WIDTH - RIGHT), may_log=True)
    ends = [point.y + side * (point.error or 0.0) for point in found for side in (-1, 1)]
    y_axis = axis_of(ends, (HEIGHT - BOTTOM, TOP))
    picture = _sheet(labels, HEIGHT + 2 * _LEGEND)
    _frame(picture, labels, (x_axis, y_axis), x_axis.ticks(4))
    best = sorted((point for point in found if point.is_front), key=lambda point: point.x)
    if best:
        add(picture, node("polyline", points=_stairs(best, x_axis, y_axis), class_="front"))
    for point in sorted(found, key=lambda one: one.is_front):
        add(picture, _symbol(point, x_axis.place(point.x), y_axis))
    y = HEIGHT + 16
    add(picture, node("circle", cx=LEFT, cy=y - 4, r=5, class_="dot best"))
    add(picture, label("none is cheaper and as good", LEFT + 10, y, "legend"))
    add(picture, node("circle", cx=LEFT + 210, cy=y - 4, r=4, class_="dot"))
    add(picture, label("the others", LEFT + 220, y, "legend"))
    return figure(labels.title, picture)


def label(words: str, x: Number, y: Number, kind: str) -> Node:
    """Words of one kind at a place."""
    return node("text", words, x=x, y=y, class_=kind)


def figure(title: str, picture: Node) -> Node:
    """A picture below its title."""
    return node("figure", node("figcaption", title), picture)


def _short(name: str) -> str:
    """A name that has room in a legend; a hand above its line reads the whole."""
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"


def _symbol(point: Point, x: float, y_axis: Axis) -> Node:
    """A point, its error bar, and what it says to a hand above it."""
    y = y_axis.place(point.y)
    kind, radius = ("dot best", 5) if point.is_front else ("dot", 4)
    group = node("g", node("title", point.told), data_setting=point.setting)
    if point.error:
        low, high = (y_axis.place(point.y + side * point.error) for side in (-1, 1))
        add(group, node("line", x1=x, x2=x, y1=low, y2=high, class_="error"))
    add(group, node("circle", cx=x, cy=y, r=radius, class_=kind))
    # A disc that is not seen, so that a finger meets the point.
    return add(group, node("circle", cx=x, cy=y, r=11, class_="reach"))


def _stairs(best: Sequence[Point], x_axis: Axis, y_axis: Axis) -> str:
    """The front as steps: what a budget buys, until more is spent."""
    corners: list[tuple[float, float]] = []
    for point in best:
        x, y = x_axis.place(point.x), y_axis.place(point.y)
        corners += [(x, corners[-1][1])] if corners else []
        corners.append((x, y))
    corners.append((WIDTH - RIGHT, corners[-1][1]))
    return " ".join(f"{x},{y}" for x, y in corners)


def _sheet(labels: Labels, height: int) -> Node:
    told = f"{labels.title}: {labels.y} against {labels.x}"
    return node("svg", viewBox=f"0 0 {WIDTH} {height}", role="img", aria_label=told)


def _frame(picture: Node, labels: Labels, axes: tuple[Axis, Axis], ticks: Sequence[float]) -> None:
    """Grid, ticks, and the names of both axes."""
    x_axis, y_axis = axes
    bottom = HEIGHT - BOTTOM
    for value in y_axis.ticks(6):
        y = y_axis.place(value)
        add(picture, node("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        add(picture, label(f"{value:g}", LEFT - 6, y + 4, "tick end"))
    for value in ticks:
        x = x_axis.place(value)
        add(picture, node("line", x1=x, x2=x, y1=bottom, y2=bottom + 4, class_="axis"))
        add(picture, label(tick_text(value, labels.unit), x, bottom + 17, "tick middle"))
    edge = {"x1": LEFT, "x2": WIDTH - RIGHT, "y1": bottom, "y2": bottom}
    add(picture, node("line", **edge, class_="axis"))
    add(picture, label(labels.x, (LEFT + WIDTH - RIGHT) / 2, bottom + 36, "name middle"))
    turned = f"translate(13 {(TOP + bottom) / 2}) rotate(-90)"
    add(picture, node("text", labels.y, transform=turned, class_="name middle"))
