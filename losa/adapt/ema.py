"""The exponential moving average of a module's weights, beside the module that learns."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


def average_decay(decay: float, step: int) -> float:
    """Share of the average that ``step`` leaves: small at first, so that the start is forgotten.

    Source: (1 + t) / (10 + t), as tf.train.ExponentialMovingAverage has it with ``num_updates``.

    Example:
        >>> average_decay(0.999, 0), average_decay(0.999, 90), average_decay(0.999, 10**6)
        (0.1, 0.91, 0.999)
    """
    return min(decay, (1 + step) / (10 + step))


class WeightAverage:
    """A copy of a module whose weights follow the module's: w' = decay * w' + (1 - decay) * w.

    What does not learn, such as statistics, is as it was when the copy was made.

    Args:
        module: the module that learns; it must be on its device already.
        decay: share of the average that a step leaves, 0..1.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).requires_grad_(requires_grad=False)
        self._decay = decay
        pairs = zip(self.module.parameters(), module.parameters(), strict=True)
        followed = [(mine, theirs) for mine, theirs in pairs if theirs.requires_grad]
        self._mine: tuple[Tensor, ...] = tuple(mine for mine, _ in followed)
        self._theirs: tuple[Tensor, ...] = tuple(theirs for _, theirs in followed)

    def follow(self, step: int) -> None:
        """Take in the weights after ``step``, counted from 0 over all epochs; nothing is waited."""
        blend = get_ema_multi_avg_fn(average_decay(self._decay, step))  # type: ignore[no-untyped-call]  # torch's stubs
        blend(self._mine, self._theirs, 0)

    def weights(self) -> dict[str, Tensor]:
        """The average, for a snapshot."""
        return self.module.state_dict()

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`weights` gave.

        Raises:
            RuntimeError: the tensors are not this module's.
        """
        self.module.load_state_dict(dict(weights))
