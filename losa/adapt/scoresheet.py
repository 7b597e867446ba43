"""An evaluation as people want it: a result, tables for a screen, CSV files and a picture.

Precision, recall and F1 of a class are over listed rows: one that could not be read is missed by
its class and predicted as none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from losa.adapt.metrics import MetricSums
from losa.adapt.objective import Sums
from losa.adapt.predictions import Predictions, csv_of
from losa.adapt.reliability import equal_mass_ece
from losa.adapt.scoreplot import picture
from losa.adapt.taskpredictions import TaskPredictions
from losa.store.files import named, write_atomic

RESULT_CLASSES: Final = 100
"""A confusion matrix of more classes is too much for a result of one line."""

SHOWN_CLASSES: Final = 20
"""More classes than this are too many for a screen; their tables are in the files."""

CONFUSION_NAME: Final = "confusion.csv"
CLASSES_NAME: Final = "classes.csv"
RELIABILITY_NAME: Final = "reliability.csv"
PICTURE_NAME: Final = "evaluate.png"

Table = tuple[list[tuple[object, ...]], tuple[str, ...]]
"""Rows and header."""


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How one class fares; a share whose whole is empty is ``None``."""

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    predicted: int


def class_scores(sums: MetricSums, classes: Sequence[str]) -> list[ClassScore]:
    """Precision, recall and F1 of each class, its listed rows, and how often it is predicted.

    ``F1 = 2 right / (listed + predicted)``, the harmonic mean of the other two.
    """
    listed, right, predicted = sums.class_counts().tolist()
    return [
        ClassScore(
            name,
            hits / said if said else None,
            hits / rows if rows else None,
            2 * hits / (rows + said) if rows + said else None,
            rows,
            said,
        )
        for name, rows, hits, said in zip(classes, listed, right, predicted, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A run of classes on a split: ``facts`` say which, ``sums`` and ``predictions`` what came out.

    Where samples have one class each, there is more to say of it than where they have any number
    of labels, or numbers: see :class:`PlainEvaluation`.
    """

    facts: dict[str, Any]
    sums: MetricSums
    predictions: Predictions
    classes: tuple[str, ...]

    @property
    def result(self) -> dict[str, Any]:
        """What is printed and handed on, as plain JSON values."""
        confusion = self.sums.confusion()
        is_small = confusion is not None and len(confusion) <= RESULT_CLASSES
        return {
            **self.facts,
            **self.sums.metrics().to_json(),
            "ece_equal_mass": equal_mass_ece(*self.predictions.confidences()),
            **({"confusion": confusion.tolist()} if confusion is not None and is_small else {}),
        }

    def tables(self) -> Iterator[Table]:
        """What a screen has room for: each class's scores, and who is taken for whom."""
        if len(self.classes) > SHOWN_CLASSES:
            return
        rows = [
            (number, one.name, *map(_percent, (one.precision, one.recall, one.f1)), one.support)
            for number, one in enumerate(class_scores(self.sums, self.classes))
        ]
        yield list(rows), ("", "class", "precision %", "recall %", "f1 %", "support")
        confusion = self.sums.confusion()
        if confusion is not None:
            pairs = zip(self.classes, confusion.tolist(), strict=True)
            counts = [(number, name, *row) for number, (name, row) in enumerate(pairs)]
            yield list(counts), ("", "true | predicted", *map(str, range(len(self.classes))))

    def write(self, out: Path) -> list[str]:
        """Write tables and picture into a folder, and say their names.

        Without matplotlib there is no picture, and one line says so.

        Raises:
            ResourceError: the folder cannot be written.
        """
        files = dict(self._files())
        with named(out):
            out.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                write_atomic(out / name, content)
        return list(files)

    def _files(self) -> Iterator[tuple[str, bytes]]:
        confusion, reliability = self.sums.confusion(), self.sums.reliability()
        scores = class_scores(self.sums, self.classes)
        header = ("class", "precision", "recall", "f1", "support", "predicted")
        cells = [
            (
                one.name,
                *map(_share, (one.precision, one.recall, one.f1)),
                one.support,
                one.predicted,
            )
            for one in scores
        ]
        yield CLASSES_NAME, csv_of(header, cells)
        if confusion is not None:
            pairs = zip(self.classes, confusion.tolist(), strict=True)
            counts = [(name, *row) for name, row in pairs]
            yield CONFUSION_NAME, csv_of(("true", *self.classes), counts)
        bins = [
            (
                f"{one.lower:.6f}",
                f"{one.upper:.6f}",
                one.rows,
                _share(one.confidence),
                _share(one.accuracy),
            )
            for one in reliability.bins
        ]
        yield RELIABILITY_NAME, csv_of(("above", "to", "rows", "confidence", "accuracy"), bins)
        title = f"{self.facts['run']}: {self.facts['split']}"
        drawn = picture(title, confusion, self.classes, reliability)
        if drawn is not None:
            yield PICTURE_NAME, drawn


@dataclass(frozen=True, eq=False)
class PlainEvaluation:
    """A run of labels or numbers on a split: metrics, and predictions if they were asked for."""

    facts: dict[str, Any]
    sums: Sums
    predictions: TaskPredictions | None

    @property
    def result(self) -> dict[str, Any]:
        """What is printed and handed on, as plain JSON values."""
        return {**self.facts, **self.sums.metrics().to_json()}

    def tables(self) -> Iterator[Table]:
        """None: the metrics are the whole of it."""
        yield from ()


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.6f}"
