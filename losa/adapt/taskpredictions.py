"""What was predicted for each sample where samples have any number of labels, or numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from losa.adapt.numberscores import Scale
from losa.adapt.predictions import csv_of
from losa.adapt.targets import SEPARATOR
from losa.adapt.task import Task
from losa.features import Sample


class TaskPredictions:
    """The logits of each scored sample, on the device until they are asked for.

    Args:
        samples: the data set's listing.
        listed: positions in it of the samples that are evaluated, readable or not.
        lines: of each of these its line of the task's table.
        task: labels or numbers.
        scale: mean and deviation of each number over the run's train.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        listed: Int64[np.ndarray, "n"],
        lines: Int64[np.ndarray, "n"],
        *,
        task: Task,
        scale: Scale,
    ) -> None:
        self._samples = samples
        self._lines = dict(zip(listed.tolist(), lines.tolist(), strict=True))
        self._task = task
        self._scale = scale
        self._source: list[int] = []
        self._logits: list[Float[Tensor, "n y"]] = []

    def add(self, source: Int64[np.ndarray, "..."], logits: Float[Tensor, "n y"]) -> None:
        """Take what was said of the samples at these positions of the listing."""
        self._source += source.tolist()
        self._logits.append(logits)

    def csv(self) -> bytes:
        """A line a listed sample in the data set's order; empty what could not be read.

        Of labels ``key,label,predicted,probability`` with a semicolon between several; predicted
        is what is likelier than not. Of numbers ``key``, and for each ``<name>,<name>_predicted``.
        """
        found = torch.cat(self._logits).double().cpu() if self._logits else torch.zeros(0, 0)
        place_of = {source: place for place, source in enumerate(self._source)}
        cells = self._numbers if self._task.kind == "numbers" else self._labels
        rows = []
        for source in sorted(self._lines):
            place = place_of.get(source)
            said = None if place is None else found[place]
            rows.append((self._samples[source].key, *cells(self._lines[source], said)))
        return csv_of(self._header(), rows)

    def _header(self) -> tuple[str, ...]:
        if self._task.kind != "numbers":
            return "key", "label", "predicted", "probability"
        pairs = [(name, f"{name}_predicted") for name in self._task.names]
        return "key", *(cell for pair in pairs for cell in pair)

    def _labels(self, line: int, said: Float[Tensor, "y"] | None) -> tuple[str, ...]:
        names = self._task.names
        labels = [names[one] for one in self._task.table[line].tolist() if one < len(names)]
        chosen = [] if said is None else torch.nonzero(said > 0).flatten().tolist()
        shares = [] if said is None else [f"{float(said[one].sigmoid()):.6f}" for one in chosen]
        predicted = [names[one] for one in chosen]
        return SEPARATOR.join(labels), SEPARATOR.join(predicted), SEPARATOR.join(shares)

    def _numbers(self, line: int, said: Float[Tensor, "y"] | None) -> tuple[str, ...]:
        wanted = self._task.table[line].tolist()
        cells: list[str] = []
        for place, (mean, std) in enumerate(self._scale):
            predicted = "" if said is None else f"{mean + std * float(said[place]):.9g}"
            cells += [f"{wanted[place]:.9g}", predicted]
        return tuple(cells)
