"""The attentive probe: one learned query attends to the tokens of the last tap."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from losa.adapt.adaptor import Adaptor
from losa.adapt.attention import HEAD_CHANNELS, FeedForward, attend, heads_in, width_of
from losa.adapt.head import Head
from losa.adapt.options import SideOptions
from losa.adapt.standardise import checked_planes
from losa.features import FeatureSpec

START_STD = 0.02
"""Standard deviation of weights and query at the start, as in the authors' code."""


class AttentiveProbe(Adaptor):
    """A cross-attention block of width r on all tokens of the last tap.

    ``[K V] = W_kv LN(b_k)``, ``u = q + attention(W_q q, K, V)``, ``v = u + MLP(LN(u))``; the head
    sees ``v``. Prefix tokens are attended to like any other.

    Source: V-JEPA (arXiv 2404.08471), its attentive pooler and the authors' code of it; what is
    theirs and what is ours: docs/paper.md.

    Args:
        spec: the features it will see.
        num_classes: number of logits.
        options: ``width`` is r (``None``: a third of the channels), ``dropout`` that of the MLP's
            hidden units.
    """

    def __init__(
        self, spec: FeatureSpec, num_classes: int = 10, *, options: SideOptions | None = None
    ) -> None:
        chosen = options or SideOptions()
        super().__init__(spec, chosen)
        channels = spec.channels
        width = width_of(chosen, channels // 3)
        self.heads = heads_in(width, channels // HEAD_CHANNELS)
        self.query = nn.Parameter(torch.zeros(1, 1, width))
        self.norm1 = nn.LayerNorm(channels)
        self.to_query = nn.Linear(width, width)
        self.to_key_value = nn.Linear(channels, 2 * width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = FeedForward(width, chosen.dropout)
        self._start()
        self.head = Head(width, num_classes)

    def forward(self, planes: Iterable[Float[Tensor, "b l d"]]) -> Float[Tensor, "b y"]:
        """Logits of one batch.

        Raises:
            MismatchError: the planes are not the spec's.
        """
        last = checked_planes(planes, self.spec)[-1]
        key, value = self.to_key_value(self.norm1(self.standardise(last, -1))).chunk(2, dim=2)
        query = self.to_query(self.query).expand(len(last), -1, -1)
        u = self.query + attend(query, key, value, self.heads)
        v = u + self.mlp(self.norm2(u))
        logits: Float[Tensor, "b y"] = self.head(v[:, 0])
        return logits

    def _start(self) -> None:
        """Small weights, no biases: at first the query sees nearly the mean of all tokens."""
        for linear in (self.to_query, self.to_key_value, self.mlp.fc1, self.mlp.fc2):
            nn.init.trunc_normal_(linear.weight, std=START_STD)
            nn.init.zeros_(linear.bias)
        nn.init.trunc_normal_(self.query, std=START_STD)
        with torch.no_grad():
            self.mlp.fc2.weight /= 2.0**0.5
