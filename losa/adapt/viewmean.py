"""What a network says of a sample when it is asked of several views: the mean.

Of probabilities where there are classes or labels, and these go on as logits of the mean
probability, so that whoever scores logits scores means; of numbers the mean of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import log
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from losa.adapt.targets import Kind

_TINY: Final = torch.finfo(torch.float64).tiny
_NEXT_TO_ONE: Final = 1.0 - torch.finfo(torch.float64).eps


def mean_of(logits: Sequence[Float[Tensor, "b y"]]) -> Float[Tensor, "b y"]:
    """Logits of the mean probabilities of several looks at one batch.

    Example:
        >>> mean_of([torch.tensor([[9.0, 9.0]]), torch.tensor([[0.0, 0.0]])]).softmax(1)
        tensor([[0.5000, 0.5000]])
    """
    looks = [look.log_softmax(1) for look in logits]
    return reduce(torch.logaddexp, looks) - log(len(looks))


class ViewMean:
    """Mean of each sample over its views, from batches of views that lie sample by sample.

    A sample's views may be cut apart by the end of a batch, or be more than a batch.

    Args:
        source: the sample of each row that will come, equal ones side by side.
        kind: what logits are of.
    """

    def __init__(self, source: Int64[np.ndarray, "n"], kind: Kind = "classes") -> None:
        self._source = source
        self._kind = kind
        self._done = 0
        self._open: tuple[Float[Tensor, "y"], int] | None = None

    def add(
        self, logits: Float[Tensor, "b y"], labels: Int64[Tensor, "b"]
    ) -> tuple[Int64[np.ndarray, "..."], Float[Tensor, "n y"], Int64[Tensor, "n"]]:
        """Take the next batch; gives the samples that are whole by it, their logits and labels."""
        source = self._source[self._done : self._done + len(logits)]
        self._done += len(logits)
        first = np.flatnonzero(np.diff(source, prepend=source[0] - 1))
        group = np.repeat(np.arange(len(first)), np.diff(first, append=len(source)))
        counts = np.bincount(group)
        # A product, not index_add_: on CUDA that adds in another order every time.
        member = torch.from_numpy(np.eye(len(first))[:, group])
        sums = _sent(member, logits.device) @ self._shares(logits.double())
        if self._open is not None:
            sums[0] += self._open[0]
            counts[0] += self._open[1]
        is_cut = self._done < len(self._source) and self._source[self._done] == source[-1]
        self._open = (sums[-1], int(counts[-1])) if is_cut else None
        whole = len(first) - is_cut
        means = sums[:whole] / _sent(torch.from_numpy(counts[:whole, None]), logits.device)
        chosen = _sent(torch.from_numpy(first[:whole]), logits.device)
        return source[first[:whole]], self._logits(means).float(), labels[chosen]

    def _shares(self, logits: Float[Tensor, "b y"]) -> Float[Tensor, "b y"]:
        """What means are taken of."""
        if self._kind == "numbers":
            return logits
        return logits.softmax(1) if self._kind == "classes" else logits.sigmoid()

    def _logits(self, means: Float[Tensor, "n y"]) -> Float[Tensor, "n y"]:
        """The inverse of :meth:`_shares`, finite whatever is certain."""
        if self._kind == "numbers":
            return means
        if self._kind == "classes":
            return means.clamp_min(_TINY).log()
        return means.clamp(_TINY, _NEXT_TO_ONE).logit()


def _sent(value: Tensor, device: torch.device) -> Tensor:
    """A tensor on the device, without waiting for what it is doing."""
    if device.type != "cuda":
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)
