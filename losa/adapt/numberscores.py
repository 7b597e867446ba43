"""Errors of predicted numbers, summed up batch by batch on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody reads
from jaxtyping import Float, Int64
from torch import Tensor

Scale = tuple[tuple[float, float], ...]
"""Mean and deviation of each number over train."""


@dataclass(frozen=True, slots=True)
class NumberMetrics:
    """What a network's numbers are off by on a split.

    ``mae`` and ``rmse`` are in the numbers' own units, ``r2`` is the share of a number's variance
    on this split that is explained; of several numbers each is the mean, and ``of_each`` has them
    all. ``loss`` is in deviations over train. Rows that could not be read have no error: they are
    in ``rows`` and ``skipped`` alone.
    """

    mae: float
    rmse: float
    r2: float
    loss: float
    of_each: Mapping[str, Mapping[str, float]]
    rows: int
    skipped: int

    @property
    def criterion(self) -> float:
        """What val chooses by: a lower loss."""
        return -self.loss

    def shown(self) -> Mapping[str, float]:
        """The few figures of a progress bar."""
        return {"r2": self.r2, "loss": self.loss}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


class NumberSums:
    """Running sums of a split's errors; nothing is read back before :meth:`metrics`.

    Args:
        table: of each sample its numbers in deviations over train, on the device.
        names: of the numbers.
        scale: their mean and deviation over train.
        kind: huber or mse.
    """

    def __init__(
        self,
        table: Float[Tensor, "n y"],
        names: Sequence[str],
        scale: Scale,
        kind: Literal["huber", "mse"],
    ) -> None:
        self._table = table
        self._names = tuple(names)
        self._std = torch.tensor(scale, dtype=torch.float64)[:, 1]
        self._loss_of = F.huber_loss if kind == "huber" else F.mse_loss
        self._loss = torch.zeros((), dtype=torch.float64, device=table.device)
        # Sums of |error|, error^2, number and number^2, in double precision: the numbers are
        # standardised, so that little is lost where the last two are taken from one another.
        self._sums = torch.zeros(4, len(names), dtype=torch.float64, device=table.device)
        self._readable = 0
        self._skipped = 0

    def add(self, logits: Float[Tensor, "b y"], labels: Int64[Tensor, "b"]) -> None:
        """Count one batch."""
        wanted = self._table[labels].double()
        errors = logits.double() - wanted
        self._loss += self._loss_of(logits.double(), wanted, reduction="none").mean(1).sum()
        parts = (errors.abs(), errors.square(), wanted, wanted.square())
        self._sums += torch.stack([part.sum(0) for part in parts])
        self._readable += len(labels)

    def add_skipped(self, labels: Int64[Tensor, "b"]) -> None:
        """Count listed rows that could not be read."""
        self._skipped += len(labels)

    def metrics(self) -> NumberMetrics:
        """The metrics so far; a split without any readable row has no errors."""
        rows = max(self._readable, 1)
        absolute, squared, total, squares = self._sums.cpu()
        spread = squares - total.square() / rows
        # As scikit-learn has it where all numbers of a split are the same, but for what rounding
        # leaves of their spread; without a row nothing is explained.
        is_constant = spread <= 1e-12 * squares.clamp_min(rows)
        otherwise = ((squared > 0) | (self._readable == 0)).double()
        unexplained = torch.where(is_constant, otherwise, squared / spread)
        figures = {
            "mae": absolute / rows * self._std,
            "rmse": (squared / rows).sqrt() * self._std,
            "r2": 1.0 - unexplained,
        }
        return NumberMetrics(
            **{name: float(values.mean()) for name, values in figures.items()},
            loss=float(self._loss) / rows,
            of_each={
                name: {figure: float(values[i]) for figure, values in figures.items()}
                for i, name in enumerate(self._names)
            },
            rows=self._readable + self._skipped,
            skipped=self._skipped,
        )
