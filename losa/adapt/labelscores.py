"""Average precision and F1 of several labels a sample, summed up batch by batch on the device.

Exact average precision would have to keep every logit of a split. Here logits are rounded to 1/256
within -16..16, and counted: memory depends on the classes alone. Logits of one step count as equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody reads
from jaxtyping import Float, Float64, Int32, Int64
from torch import Tensor

STEPS_PER_UNIT: Final = 256
LARGEST: Final = 16.0
BINS: Final = round(2 * LARGEST * STEPS_PER_UNIT) + 1
"""Steps from -16 to 16, both included."""

CLASSES_AT_A_TIME: Final = 64
"""Classes whose counts are in double precision at once: 8 MB, and some times as much beside it."""


@dataclass(frozen=True, slots=True)
class LabelMetrics:
    """What a network scores on a split whose samples have any number of labels.

    ``mean_ap`` and ``macro_f1`` are means over the classes that have rows; F1 takes what has a
    probability above one half. A row that could not be read ranks below all others and has no label
    guessed; ``loss`` leaves it out.
    """

    mean_ap: float
    macro_f1: float
    micro_f1: float
    loss: float
    rows: int
    skipped: int

    @property
    def criterion(self) -> float:
        """What val chooses by: the mean average precision."""
        return self.mean_ap

    def shown(self) -> Mapping[str, float]:
        """The few figures of a progress bar."""
        return {"mean_ap": self.mean_ap, "loss": self.loss}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


class LabelSums:
    """Running sums of a split's metrics; nothing is read back before :meth:`metrics`.

    Args:
        table: of each sample its labels, on the device; the number of classes stands for none.
        classes: how many there are.
    """

    def __init__(self, table: Int64[Tensor, "n ..."], classes: int) -> None:
        device = table.device
        self._table = table
        self._classes = classes
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        # Of each class and outcome, how many logits lie at a step; the last one is for rows that
        # could not be read, below all that could.
        size = classes * 2 * (BINS + 1)
        self._counts = torch.zeros(size, dtype=torch.int32, device=device)
        self._hits = torch.zeros(classes, dtype=torch.int64, device=device)
        self._guesses = torch.zeros(classes, dtype=torch.int64, device=device)
        self._readable = 0
        self._skipped = 0

    def add(self, logits: Float[Tensor, "b y"], labels: Int64[Tensor, "b"]) -> None:
        """Count one batch."""
        logits = logits.float()
        wanted = multi_hot(self._table[labels], self._classes)
        losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        self._loss += losses.double().mean(1).sum()
        is_guessed = logits > 0
        self._hits += (is_guessed & wanted.bool()).sum(0)
        self._guesses += is_guessed.sum(0)
        # NaN, which the loss tells of, has no step of its own: it counts as the lowest.
        near = (logits.nan_to_num(-LARGEST).clamp(-LARGEST, LARGEST) + LARGEST) * STEPS_PER_UNIT
        # 1 the lowest: 0 is for what could not be read.
        self._count(near.round().long() + 1, wanted)
        self._readable += len(labels)

    def add_skipped(self, labels: Int64[Tensor, "b"]) -> None:
        """Count listed rows that could not be read: below all others, and without any guess."""
        wanted = multi_hot(self._table[labels.to(self._table.device)], self._classes)
        self._count(torch.zeros_like(wanted, dtype=torch.int64), wanted)
        self._skipped += len(labels)

    def metrics(self) -> LabelMetrics:
        """The metrics so far; a split without any positive scores zero."""
        counts = self._counts.view(self._classes, 2, BINS + 1).cpu()
        positives = counts[:, 1].sum(1).double()
        hits, guesses = self._hits.cpu().double(), self._guesses.cpu().double()
        has_rows = positives > 0
        f1 = _share(2 * hits, guesses + positives)
        readable = self._readable
        return LabelMetrics(
            mean_ap=_mean(_average_precision(counts[has_rows])),
            macro_f1=_mean(f1[has_rows]),
            micro_f1=float(_share(2 * hits.sum(), (guesses + positives).sum())),
            loss=float(self._loss) / readable if readable else 0.0,
            rows=readable + self._skipped,
            skipped=self._skipped,
        )

    def _count(self, steps: Int64[Tensor, "b y"], wanted: Float[Tensor, "b y"]) -> None:
        first = torch.arange(self._classes, device=steps.device) * 2
        place = ((first + wanted.long()) * (BINS + 1) + steps).reshape(-1)
        ones = torch.ones_like(place, dtype=self._counts.dtype)
        self._counts.index_add_(0, place, ones)


def multi_hot(labels: Int64[Tensor, "b ..."], classes: int) -> Float[Tensor, "b y"]:
    """1 for each label of a sample, else 0; ``classes`` as a label stands for none.

    Example:
        >>> multi_hot(torch.tensor([[0, 2], [1, 3]]), 3).tolist()
        [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    """
    found = torch.zeros(len(labels), classes + 1, device=labels.device)
    return found.scatter_(1, labels, 1.0)[:, :classes]


def average_precision(counts: Float64[Tensor, "y 2 ..."]) -> Float64[Tensor, "y"]:
    """Sum over thresholds of precision times what recall rises by, of each class.

    Args:
        counts: of each class, negatives and positives at each step of logits, ascending.

    Source: Manning, Raghavan, Schuetze, Introduction to Information Retrieval, section 8.4, with
    equal logits taken at once, as scikit-learn's ``average_precision_score`` has it.
    """
    negatives, positives = counts.flip(-1).unbind(1)
    right = positives.cumsum(-1)
    precision = _share(right, right + negatives.cumsum(-1))
    return (precision * positives).sum(-1) / right[:, -1]


def _average_precision(counts: Int32[Tensor, "y 2 ..."]) -> Float64[Tensor, "y"]:
    """The same of exact counts, some classes at a time: in double precision they are large."""
    starts = range(0, len(counts), CLASSES_AT_A_TIME)
    parts = (counts[first : first + CLASSES_AT_A_TIME] for first in starts)
    # An empty piece first: where no class has a row there would be nothing to join.
    return torch.cat([torch.zeros(0).double(), *(average_precision(x.double()) for x in parts)])


def _mean(values: Float64[Tensor, "..."]) -> float:
    return float(values.mean()) if values.numel() else 0.0


def _share(part: Float64[Tensor, "..."], whole: Float64[Tensor, "..."]) -> Float64[Tensor, "..."]:
    return torch.where(whole > 0, part / whole.clamp_min(1.0), torch.zeros_like(part))
