"""Two swept fields against each other: the best of every cell, written and shaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

from losa.report.axis import Number
from losa.report.markup import Node, add, node
from losa.report.plots import WIDTH, figure, label
from losa.report.ranking import Criterion, Setting, is_number, shown
from losa.store.files import canonical_json

MOST_VALUES: Final = 10
"""A field of more values than this has no cells that could be read."""

LEAST_FILLED: Final = 0.6
"""Share of cells below which two fields were not swept against each other."""

SHADES: Final = 9
_HEIGHT: Final = 36
_SIDE: Final = 92


def ordered(settings: Sequence[Setting], field: str) -> list[Any]:
    """The values of a field, numbers by size, others as they are written.

    Example:
        >>> ordered([Setting(1, {"rank": value}, ()) for value in (8, None, 2, 8)], "rank")
        [2, 8, None]
    """
    found = {_key(one.values[field]): one.values[field] for one in settings}
    return sorted(found.values(), key=lambda value: (not is_number(value), _sortable(value)))


def field_pairs(settings: Sequence[Setting]) -> list[tuple[str, str]]:
    """Pairs of fields that were swept against each other, in the configuration's order."""
    fields = list(settings[0].values) if settings else []
    counts = {field: len(ordered(settings, field)) for field in fields}
    few = [field for field in fields if 1 < counts[field] <= MOST_VALUES]
    return [
        (row, column)
        for row, column in combinations(few, 2)
        if len(best_cells(settings, row, column)) >= LEAST_FILLED * counts[row] * counts[column]
    ]


def best_cells(settings: Sequence[Setting], row: str, column: str) -> Mapping[bytes, Setting]:
    """Of each two values the first setting that has them, which is the best: they are in order."""
    found: dict[bytes, Setting] = {}
    for setting in settings:
        found.setdefault(_key(setting.values[row], setting.values[column]), setting)
    return found


def heatmap(
    settings: Sequence[Setting], criterion: Criterion, fields: tuple[str, str]
) -> Node | None:
    """The best val mean of every two values; ``None`` where nothing has a val."""
    rows, columns = (ordered(settings, field) for field in fields)
    width = max(48.0, min(110.0, (WIDTH - _SIDE - 8) / len(columns)))
    sheet = _Sheet(settings, criterion, fields, width)
    if not sheet.means:
        return None
    bottom, right = 4 + _HEIGHT * len(rows), _SIDE + width * len(columns)
    told = f"val {criterion.words} by {words(fields[0])} and {words(fields[1])}"
    box = f"0 0 {max(WIDTH, right + 8):g} {bottom + 44}"
    picture = node("svg", viewBox=box, role="img", aria_label=told)
    for down, row in enumerate(rows):
        y = 4 + _HEIGHT * down
        add(picture, label(shown(row), _SIDE - 8, y + _HEIGHT / 2 + 4, "tick end"))
        for across, column in enumerate(columns):
            add(picture, sheet.cell(_key(row, column), _SIDE + width * across, y))
    for across, column in enumerate(columns):
        x = _SIDE + width * (across + 0.5)
        add(picture, label(shown(column), x, bottom + 17, "tick middle"))
    add(picture, label(words(fields[1]), (_SIDE + right) / 2, bottom + 36, "name middle"))
    turned = f"translate(13 {bottom / 2:g}) rotate(-90)"
    add(picture, node("text", words(fields[0]), transform=turned, class_="name middle"))
    unit = f" ({criterion.unit})" if criterion.unit else ""
    return figure(f"val {criterion.words}{unit}, the best of each cell", picture)


@dataclass(frozen=True, slots=True)
class _Sheet:
    """What the cells of a heatmap share."""

    settings: Sequence[Setting]
    criterion: Criterion
    fields: tuple[str, str]
    width: float

    @property
    def means(self) -> list[float]:
        """The val means of all cells."""
        best = best_cells(self.settings, *self.fields).values()
        scores = [one.score("val", self.criterion.key) for one in best]
        return [score.value for score in scores if score is not None]

    def cell(self, key: bytes, x: Number, y: Number) -> Node:
        """One cell: its shade, its value, and to a hand above it the setting."""
        setting = best_cells(self.settings, *self.fields).get(key)
        score = None if setting is None else setting.score("val", self.criterion.key)
        place = {"x": round(x + 1, 2), "y": y + 1, "width": self.width - 2, "height": _HEIGHT - 2}
        middle = (x + self.width / 2, y + _HEIGHT / 2 + 4)
        if setting is None or score is None:
            box = node("rect", **place, class_="cell none")
            return node("g", node("title", "no trial has ended"), box, label("-", *middle, "value"))
        told = f"{setting.name}: {self.criterion.text(score.value, score.error)}"
        box = node("rect", **place, class_=f"cell shade{self._shade(score.value)}")
        text = label(self.criterion.brief(score.value), *middle, "value")
        return node("g", node("title", told), box, text, data_setting=setting.number)

    def _shade(self, value: float) -> int:
        return shade(value, self.means, is_higher_better=self.criterion.is_higher_better)


def shade(value: float, among: Sequence[float], *, is_higher_better: bool) -> int:
    """The shade of a value, 0 of the worst and ``SHADES - 1`` of the best.

    Example:
        >>> [shade(value, (0.0, 1.0), is_higher_better=True) for value in (0.0, 0.5, 1.0)]
        [0, 4, 8]
    """
    low, high = min(among), max(among)
    share = (value - low) / (high - low) if high > low else 1.0
    return round((SHADES - 1) * (share if is_higher_better or high == low else 1.0 - share))


def words(field: str) -> str:
    """A field's name for people.

    Example:
        >>> words("weight_decay")
        'weight decay'
    """
    return field.replace("_", " ")


def _key(*values: object) -> bytes:
    return canonical_json({"": list(values)})


def _sortable(value: Any) -> tuple[float, str]:
    return (float(value), "") if is_number(value) else (0.0, shown(value))
