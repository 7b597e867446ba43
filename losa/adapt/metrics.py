"""Accuracy and loss of a split, summed up batch by batch on the device.

All are fractions in 0..1, over the *listed* rows: a sample that could not be read counts as wrong,
otherwise skipping hard files would raise the score. ``top1_readable`` leaves such rows out, and so
does ``loss``, which has no value for them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody reads
from jaxtyping import Float, Int64
from torch import Tensor

TOP: Final = 5
CONFUSION_CLASSES: Final = 1000
"""A confusion matrix of more classes is not kept: iNaturalist's would take half a gigabyte."""


@dataclass(frozen=True, slots=True)
class SplitMetrics:
    """What a network scores on a split; ``mean_per_class`` is over the classes that have rows."""

    top1: float
    top5: float
    mean_per_class: float
    loss: float
    top1_readable: float
    rows: int
    skipped: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def improves_on(self, other: SplitMetrics | None) -> bool:
        """Whether to choose this over an earlier one: a higher top-1, or the same later on.

        Of equals the later: a small val set has many ties, an early one is luck more often, and
        annealed weights hold up better on other data (docs/log.md).
        """
        return other is None or self.top1 >= other.top1


class MetricSums:
    """Running sums of a split's metrics; nothing is read back before :meth:`metrics`."""

    def __init__(self, classes: int, device: torch.device | str = "cpu") -> None:
        self._classes = classes
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._top5 = torch.zeros((), dtype=torch.int64, device=device)
        self._listed = torch.zeros(classes, dtype=torch.int64, device=device)
        self._right = torch.zeros(classes, dtype=torch.int64, device=device)
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

    def metrics(self) -> SplitMetrics:
        """The metrics so far; a split without any row scores zero."""
        listed, right = self._listed.cpu().double(), self._right.cpu().double()
        rows = int(listed.sum())
        readable = rows - self._skipped
        present = listed > 0
        return SplitMetrics(
            top1=_share(float(right.sum()), rows),
            top5=_share(float(self._top5), rows),
            mean_per_class=float((right[present] / listed[present]).mean()) if rows else 0.0,
            loss=_share(float(self._loss), readable),
            top1_readable=_share(float(right.sum()), readable),
            rows=rows,
            skipped=self._skipped,
        )


def _share(part: float, whole: int) -> float:
    return part / whole if whole else 0.0
