"""How settings learnt: val and train loss by epoch, each the mean over a setting's seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from losa.report.markup import Node
from losa.report.plots import Labels, Series, lines
from losa.report.ranking import Criterion, Setting, is_number

MOST_SERIES: Final = 60
"""More lines say nothing; the best are drawn."""

Pick = Callable[[Mapping[str, Any]], object]


def curves(settings: Sequence[Setting], criterion: Criterion) -> list[Node]:
    """The figures that the curves of these settings give: none, one or two."""
    unit = f" ({criterion.unit})" if criterion.unit else ""
    val = [
        Series(one.name, tuple((x, criterion.shown(y)) for x, y in one.points), one.setting)
        for one in series_of(settings, lambda line: (line.get("val") or {}).get(criterion.key))
    ]
    train = series_of(settings, lambda line: line.get("train_loss"))
    found = []
    if val:
        told = Labels("learning curves on val", "epoch", f"val {criterion.words}{unit}")
        found.append(lines(told, val))
    if train:
        told = Labels("training loss", "epoch", "train loss")
        if len(settings) == 1:
            told = Labels("loss", "epoch", "mean loss of a sample")
            train = _beside_val(settings, train)
        found.append(lines(told, train))
    return found


def _beside_val(settings: Sequence[Setting], train: Sequence[Series]) -> list[Series]:
    """Train and val loss of the one setting there is."""
    val = series_of(settings, lambda line: (line.get("val") or {}).get("loss"))
    return [replace(one, name="train") for one in train] + [replace(one, name="val") for one in val]


def series_of(settings: Sequence[Setting], pick: Pick) -> list[Series]:
    """A line a setting: at each epoch the mean of what is picked of its trials' lines there."""
    found = []
    for setting in settings:
        by_epoch: dict[float, list[float]] = {}
        for trial in setting.whole or setting.trials:
            for line in trial.curve:
                epoch, value = line.get("epoch"), pick(line)
                if is_number(epoch) and is_number(value):
                    by_epoch.setdefault(float(epoch), []).append(float(value))
        points = tuple((epoch, statistics.fmean(of)) for epoch, of in sorted(by_epoch.items()))
        if points:
            found.append(Series(f"{setting.number}. {setting.name}", points, setting.number))
    return found[:MOST_SERIES]
