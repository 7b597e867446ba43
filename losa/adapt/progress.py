"""What a long call tells its caller while it works; the command line makes it a bar."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Phase = Literal["train", "val", "test"]


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """``step`` of ``steps`` batches are done, in ``epoch`` counted from zero.

    An epoch ends with a ``val`` event that carries ``metrics``: ``train_loss``, ``top1``, ``loss``.
    ``test`` comes once, after the last epoch.
    """

    phase: Phase
    epoch: int
    epochs: int
    step: int
    steps: int
    metrics: Mapping[str, float] = field(default_factory=dict)


Progress = Callable[[ProgressEvent], None]
