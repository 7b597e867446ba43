"""Linear probes in closed form: ridge regression on one-hot targets, told apart by their kernels.

With n samples and many more features, everything follows from the n x n kernel of standardised
features. The kernel of several taps is the mean of theirs, so that a probe on any set of taps costs
one factorisation, and leaving one sample out costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

PENALTIES: Final = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Ridge penalties that are tried, as multiples of the kernel's mean diagonal."""

_LEAST_DEVIATION: Final = 1e-2
_TINY: Final = 1e-30


@dataclass(frozen=True)
class Probe:
    """What a probe answers for samples that it has not seen.

    Args:
        hits: right answers: of training samples each left out in turn, then of those held out.
        errors: squared errors of the same samples, means over classes.
        penalty: the ridge penalty, that with the least squared error of left-out samples.
        trained: how many come first of those that train.
    """

    hits: Bool[Tensor, "n"]
    errors: Float[Tensor, "n"]
    penalty: float
    trained: int

    @property
    def loss(self) -> float:
        """Mean squared error of training samples, each left out in turn."""
        return float(self.errors[: self.trained].mean())

    @property
    def top1(self) -> float:
        """Share of right answers."""
        return float(self.hits.double().mean())


def kernel(features: Float[Tensor, "n e"], trained: int) -> Float[Tensor, "n n"]:
    """Inner products of features standardised by the first ``trained`` rows, over their number.

    Features that hardly change are kept from growing: a deviation counts as at least a hundredth
    of the mean one.
    """
    # In float64 up to here: a mean that is off by its rounding is what small penalties amplify.
    values = features.double()
    values -= values[:trained].mean(0)
    deviation = values[:trained].square().mean(0).sqrt()
    least = _LEAST_DEVIATION * deviation.mean()
    scaled = (values / deviation.clamp_min(least).clamp_min(_TINY)).float()
    return scaled @ scaled.T / features.shape[1]


def probe(
    gram: Float[Tensor, "n n"],
    labels: Int[Tensor, "n"],
    trained: int,
    penalties: Sequence[float] = PENALTIES,
) -> Probe:
    """The probe of a kernel whose first ``trained`` rows train it.

    Source: with G = (K + p I)^-1 of centred features, leaving row i out changes its residual from
    (p G Y)_i to (p G Y)_i / (p G_ii - 1/n); the intercept is not penalised.
    """
    classes, targets = torch.unique(labels, return_inverse=True)
    wanted = torch.nn.functional.one_hot(targets, len(classes)).double()
    mean = wanted[:trained].mean(0)
    # Centred once more, in float64: leaving one out divides by what rounding would leave of it.
    inner = gram[:, :trained].double()
    of_columns = inner[:trained].mean(0)
    inner = inner - inner.mean(1, keepdim=True) - of_columns + of_columns.mean()
    square, others = inner[:trained], inner[trained:]
    unit = float(square.diagonal().mean()) or 1.0
    found = []
    for penalty in penalties:
        inverse = _inverse(square, penalty * unit)
        weights = inverse @ (wanted[:trained] - mean)
        kept = penalty * unit * inverse.diagonal() - 1 / trained
        left_out = penalty * unit * weights / kept.clamp_min(1e-12)[:, None]
        scores = torch.cat([wanted[:trained] - left_out, others @ weights + mean])
        hits = scores.argmax(1) == targets
        found.append(Probe(hits, (scores - wanted).square().mean(1), penalty, trained))
    return min(found, key=lambda item: item.loss)


def _inverse(square: Float[Tensor, "n n"], penalty: float) -> Float[Tensor, "n n"]:
    """Inverse of a positive semidefinite matrix plus a multiple of the identity."""
    shifted = square.clone()
    shifted.diagonal().add_(penalty)
    result: Tensor = torch.cholesky_inverse(torch.linalg.cholesky(shifted))
    return result
