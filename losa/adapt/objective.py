"""What a batch is to be learnt for: the loss of a task, and the sums of its metrics.

A batch carries one whole number a sample. Of classes that is the class itself; of several labels
and of numbers it is the sample's line in the task's table, which lies where the logits are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody reads
from jaxtyping import Float, Int64
from torch import Tensor

from losa.adapt.labelscores import LabelMetrics, LabelSums, multi_hot
from losa.adapt.metrics import MetricSums, SplitMetrics
from losa.adapt.numberscores import NumberMetrics, NumberSums, Scale
from losa.adapt.partition import Part
from losa.adapt.source import FeatureSource
from losa.adapt.task import Task, task_in
from losa.config import AdaptConfig
from losa.errors import InputError

ClassWeights = Literal["none", "balanced", "effective"]

EFFECTIVE_BETA: Final = 0.999
"""How soon another sample of a class adds nothing new: the 1,000th counts a third of the first."""


@runtime_checkable
class Metrics(Protocol):
    """What a network scores on a split, of any task."""

    @property
    def loss(self) -> float:
        """Mean loss of a sample."""
        ...

    @property
    def criterion(self) -> float:
        """What val chooses by: the higher, the better."""
        ...

    def shown(self) -> Mapping[str, float]:
        """The few figures of a progress bar."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        ...


@runtime_checkable
class Sums(Protocol):
    """Running sums of a split's metrics; nothing is read back before :meth:`metrics`."""

    def add(self, logits: Float[Tensor, "b y"], labels: Int64[Tensor, "b"]) -> None:
        """Count one batch."""
        ...

    def add_skipped(self, labels: Int64[Tensor, "b"]) -> None:
        """Count listed rows that could not be read."""
        ...

    def metrics(self) -> Metrics:
        """The metrics so far."""
        ...


@dataclass(frozen=True, eq=False)
class Mixing:
    """Mixup of a batch: ``share`` of each sample stays, ``others`` give the rest."""

    share: float
    others: Int64[Tensor, "b"]


@runtime_checkable
class Objective(Protocol):
    """A task's loss and metrics, on one device."""

    def loss(
        self, logits: Float[Tensor, "b y"], labels: Int64[Tensor, "b"], mixing: Mixing | None = None
    ) -> Float[Tensor, ""]:
        """Mean loss of a batch; nothing is waited for."""
        ...

    def sums(self) -> Sums:
        """Empty sums of the task's metrics."""
        ...

    def metrics_of(self, values: Mapping[str, Any]) -> Metrics:
        """Metrics from their JSON values.

        Raises:
            TypeError: these are not the values of this task's metrics.
        """
        ...


class ClassObjective:
    """One class a sample: cross-entropy with label smoothing, each class with its weight.

    Args:
        classes: how many there are.
        smoothing: share of a label that all classes get.
        weights: of each class, as :func:`class_weights` gives them.
        device: where logits are.
    """

    def __init__(
        self,
        classes: int,
        *,
        smoothing: float,
        weights: Float[Tensor, "y"] | None = None,
        device: torch.device,
    ) -> None:
        self._classes = classes
        self._smoothing = smoothing
        self._weights = None if weights is None else weights.float().to(device)
        self._device = device

    def loss(
        self, logits: Float[Tensor, "b y"], labels: Int64[Tensor, "b"], mixing: Mixing | None = None
    ) -> Float[Tensor, ""]:
        """Mean over the batch of weight times cross-entropy; mixed labels mix it likewise."""
        first = self._unmixed(logits, labels)
        if mixing is None:
            return first
        second = self._unmixed(logits, labels[mixing.others])
        return torch.lerp(second, first, mixing.share)

    def _unmixed(
        self, logits: Float[Tensor, "b y"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, ""]:
        if self._weights is None:
            return F.cross_entropy(logits, labels, label_smoothing=self._smoothing)
        # Not torch's own weights: it divides by those of the batch, so that a batch of one class
        # would have none, and weighs the smoothed share by the other classes' weights.
        each = F.cross_entropy(logits, labels, label_smoothing=self._smoothing, reduction="none")
        return (self._weights[labels] * each).mean()

    def sums(self) -> MetricSums:
        """Empty sums of top-1 and its companions."""
        return MetricSums(self._classes, self._device)

    def metrics_of(self, values: Mapping[str, Any]) -> SplitMetrics:
        """Metrics from their JSON values."""
        return SplitMetrics(**values)


class LabelsObjective:
    """Any number of labels a sample: a binary cross-entropy for each class.

    Label smoothing shares among the classes, as for one class a sample: t (1 - s) + s / y. Of one
    class alone it shares between its two outcomes, as of two.

    Args:
        table: of each sample its labels; the number of classes stands for none.
        classes: how many there are.
        smoothing: share of a label that all classes get.
        weights: what the positive term of each class is multiplied by.
        device: where logits are.
    """

    def __init__(
        self,
        table: Int64[Tensor, "n ..."],
        classes: int,
        *,
        smoothing: float,
        weights: Float[Tensor, "y"] | None = None,
        device: torch.device,
    ) -> None:
        self._table = table.to(device)
        self._classes = classes
        self._smoothing = smoothing
        self._weights = None if weights is None else weights.float().to(device)
        self._device = device

    def loss(
        self, logits: Float[Tensor, "b y"], labels: Int64[Tensor, "b"], mixing: Mixing | None = None
    ) -> Float[Tensor, ""]:
        """Mean over batch and classes; mixed samples have mixed targets."""
        wanted = multi_hot(self._table[labels], self._classes)
        if mixing is not None:
            wanted = torch.lerp(wanted[mixing.others], wanted, mixing.share)
        # A floor of s / 2 would be for every class: of 80, four labels a sample that has none.
        wanted = wanted * (1.0 - self._smoothing) + self._smoothing / max(self._classes, 2)
        return F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=self._weights)

    def sums(self) -> LabelSums:
        """Empty sums of average precision and F1."""
        return LabelSums(self._table, self._classes)

    def metrics_of(self, values: Mapping[str, Any]) -> LabelMetrics:
        """Metrics from their JSON values."""
        return LabelMetrics(**values)


class NumbersObjective:
    """Numbers: the logits are numbers in units of their deviation over train.

    Huber's loss is half the square up to one deviation and linear beyond it.

    Args:
        table: of each sample its numbers, in their own units.
        names: of the numbers.
        scale: mean and deviation of each number over train.
        kind: huber or mse.
        device: where logits are.

    Raises:
        InputError: a number is too far from train's to be told in deviations.
    """

    def __init__(
        self,
        table: Float[Tensor, "n y"],
        names: Sequence[str],
        *,
        scale: Scale,
        kind: Literal["huber", "mse"],
        device: torch.device,
    ) -> None:
        mean, std = torch.tensor(scale, dtype=torch.float64).T
        # Standardised in double precision: a mean far from zero would eat the digits.
        relative = ((table.double() - mean) / std).float()
        if len(far := torch.nonzero(~relative.isfinite())):
            line, number = far[0].tolist()
            what = f"{names[number]} is {float(table[line, number]):g} for a sample"
            what += f", and {scale[number][0]:g} on average over train"
            raise InputError("--targets", what, "mend that number, or leave its line out")
        self._table = relative.to(device)
        self._names = tuple(names)
        self._scale = scale
        self._kind = kind

    def loss(
        self, logits: Float[Tensor, "b y"], labels: Int64[Tensor, "b"], mixing: Mixing | None = None
    ) -> Float[Tensor, ""]:
        """Mean over batch and numbers; mixed samples have mixed targets."""
        wanted = self._table[labels]
        if mixing is not None:
            wanted = torch.lerp(wanted[mixing.others], wanted, mixing.share)
        return F.huber_loss(logits, wanted) if self._kind == "huber" else F.mse_loss(logits, wanted)

    def sums(self) -> NumberSums:
        """Empty sums of errors."""
        return NumberSums(self._table, self._names, self._scale, self._kind)

    def metrics_of(self, values: Mapping[str, Any]) -> NumberMetrics:
        """Metrics from their JSON values."""
        return NumberMetrics(**values)


def objective_of(
    store: FeatureSource,
    config: AdaptConfig,
    scale: Scale,
    device: torch.device,
    train: Part | None = None,
) -> Objective:
    """The objective of a store's task.

    Args:
        store: the store as its task has it.
        config: smoothing, weights and loss.
        scale: of numbers, their mean and deviation over train.
        device: where logits are.
        train: the rows that class weights are counted on; ``None``: all weigh the same.
    """
    task, classes = task_in(store), len(store.classes)
    if task is not None and task.kind == "numbers":
        kind = config.regression_loss
        return NumbersObjective(task.table, task.names, scale=scale, kind=kind, device=device)
    labels = None if train is None else labels_of_samples(train)
    smoothing, kinds = config.label_smoothing, config.class_weights
    if task is None or task.kind == "classes":
        counts = None if labels is None else torch.bincount(labels, minlength=classes)
        weights = None if counts is None else class_weights(counts, kinds)
        return ClassObjective(classes, smoothing=smoothing, weights=weights, device=device)
    weights = None if labels is None else _weights_of_labels(task, labels, kinds)
    return LabelsObjective(task.table, classes, smoothing=smoothing, weights=weights, device=device)


def labels_of_samples(part: Part) -> Int64[Tensor, "..."]:
    """Labels of a part's samples, once each: an epoch sees one view of a sample."""
    _, first = np.unique(part.split.source_index[part.rows], return_index=True)
    return torch.from_numpy(part.split.labels[part.rows[first]]).long()


def _weights_of_labels(
    task: Task, lines: Int64[Tensor, "..."], kind: ClassWeights
) -> Float[Tensor, "y"] | None:
    classes = len(task.names)
    positives = torch.bincount(task.table[lines].reshape(-1), minlength=classes + 1)[:classes]
    return positive_weights(positives, len(lines), kind)


def amount(counts: Float[Tensor, "y"], kind: ClassWeights) -> Float[Tensor, "y"]:
    """How much so many samples are worth: their number, or their effective number.

    Source: Class-balanced loss (arXiv 1901.05555), eq. 3: (1 - beta^n) / (1 - beta).
    """
    if kind == "balanced":
        return counts
    return (1.0 - EFFECTIVE_BETA**counts) / (1.0 - EFFECTIVE_BETA)


def class_weights(counts: Int64[Tensor, "y"], kind: ClassWeights) -> Float[Tensor, "y"] | None:
    """Weight of each class, one over its amount, such that train's samples have 1 on average.

    A class without samples has none, for no sample asks for it. ``balanced``: n / (y * n_c), as
    scikit-learn has it.

    Example:
        >>> class_weights(torch.tensor([6, 2]), "balanced").tolist()
        [0.6666666666666666, 2.0]
    """
    if kind == "none":
        return None
    found = counts.double()
    weights = torch.where(found > 0, 1.0 / amount(found, kind).clamp_min(1e-300), 0.0)
    result: Float[Tensor, "y"] = weights * found.sum() / (weights * found).sum()
    return result


def positive_weights(
    positives: Int64[Tensor, "y"], samples: int, kind: ClassWeights
) -> Float[Tensor, "y"] | None:
    """Weight of the positive term of each class: the amount of its negatives over its positives'.

    1 where train has no positive: no sample asks for it.

    Example:
        >>> positive_weights(torch.tensor([2, 0]), 8, "balanced").tolist()
        [3.0, 1.0]
    """
    if kind == "none":
        return None
    found = positives.double()
    share = amount(samples - found, kind) / amount(found, kind).clamp_min(1e-300)
    # A class that every sample has would weigh nothing, and its loss could not fall.
    is_both = (found > 0) & (found < samples)
    result: Float[Tensor, "y"] = torch.where(is_both, share, torch.ones_like(share))
    return result
