"""Accuracy and loss of a split, summed up batch by batch on the device.

All are fractions in 0..1, over the *listed* rows: a sample that could not be read counts as wrong,
otherwise skipping hard files would raise the score. ``top1_readable`` leaves such rows out, and so
do ``loss``, the negative log-likelihood, and the figures of reliability, which have no value for
them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody reads
from jaxtyping import Float, Int64
from torch import Tensor

from losa.adapt.reliability import Reliability, ReliabilitySums

TOP: Final = 5
CONFUSION_CLASSES: Final = 1000
"""A confusion matrix of more classes is not kept: iNaturalist's would take half a gigabyte."""


@dataclass(frozen=True, slots=True)
class SplitMetrics:
    """What a network scores on a split; ``mean_per_class`` is over the classes that have rows.

    ``ece`` and ``brier`` are those of :mod:`losa.adapt.reliability`; ``None`` where no classes are
    predicted.
    """

    top1: float
    top5: float
    mean_per_class: float
    loss: float
    top1_readable: float
    rows: int
    skipped: int
    ece: float | None = None
    brier: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @property
    def criterion(self) -> float:
        """What val chooses by: top-1."""
        return self.top1

    def shown(self) -> dict[str, float]:
        """The few figures of a progress bar."""
        return {"top1": self.top1, "loss": self.loss}


class MetricSums:
    """Running sums of a split's metrics; nothing is read back before :meth:`metrics`."""

    def __init__(self, classes: int, device: torch.device | str = "cpu") -> None:
        self._classes = classes
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._top5 = torch.zeros((), dtype=torch.int64, device=device)
        self._listed = torch.zeros(classes, dtype=torch.int64, device=device)
        self._right = torch.zeros(classes, dtype=torch.int64, device=device)
        self._predicted = torch.zeros(classes, dtype=torch.int64, device=device)
        self._reliability = ReliabilitySums(device)
        self._confusion = (
            torch.zeros(classes * classes, dtype=torch.int64, device=device)
            if classes <= CONFUSION_CLASSES
            else None
        )
        self._skipped = 0

    def add(self, logits: Float[Tensor, "b y"], labels: Int64[Tensor, "b"]) -> None:
        """Count one batch."""
        logits = logits.float()
        best = logits.argmax(1)
        top = logits.topk(min(TOP, self._classes), dim=1).indices
        ones = torch.ones_like(labels)
        self._loss += F.cross_entropy(logits, labels, reduction="sum").double()
        self._top5 += (top == labels[:, None]).any(1).sum()
        self._listed.index_add_(0, labels, ones)
        self._right.index_add_(0, labels, (best == labels).long())
        self._predicted.index_add_(0, best, ones)
        self._reliability.add(logits, labels)
        if self._confusion is not None:
            self._confusion.index_add_(0, labels * self._classes + best, ones)

    def add_skipped(self, labels: Int64[Tensor, "b"]) -> None:
        """Count listed rows that could not be read, as wrong."""
        labels = labels.to(self._listed.device)
        self._listed.index_add_(0, labels, torch.ones_like(labels))
        self._skipped += len(labels)

    def confusion(self) -> Int64[Tensor, "y y"] | None:
        """Counts of (true class, predicted class) of readable rows, or nothing for many classes."""
        if self._confusion is None:
            return None
        return self._confusion.view(self._classes, self._classes).cpu()

    def class_counts(self) -> Int64[np.ndarray, "3 y"]:
        """Of each class the listed rows, those that are right, and the rows predicted as it."""
        found = torch.stack([self._listed, self._right, self._predicted])
        counts: Int64[np.ndarray, "3 y"] = found.cpu().numpy()
        return counts

    def reliability(self) -> Reliability:
        """Confidence against accuracy, bin by bin."""
        return self._reliability.reliability()

    def metrics(self) -> SplitMetrics:
        """The metrics so far; a split without any row scores zero."""
        listed, right = self._listed.cpu().double(), self._right.cpu().double()
        rows = int(listed.sum())
        readable = rows - self._skipped
        present = listed > 0
        reliability = self.reliability()
        return SplitMetrics(
            top1=_share(float(right.sum()), rows),
            top5=_share(float(self._top5), rows),
            mean_per_class=float((right[present] / listed[present]).mean()) if rows else 0.0,
            loss=_share(float(self._loss), readable),
            top1_readable=_share(float(right.sum()), readable),
            rows=rows,
            skipped=self._skipped,
            ece=reliability.ece,
            brier=reliability.brier,
        )


def _share(part: float, whole: int) -> float:
    return part / whole if whole else 0.0
