"""Attentive layer fusion: one learned query attends to the CLS and mean tokens of all taps."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from losa.adapt.adaptor import Adaptor
from losa.adapt.attention import attend, dropped, heads_in, width_of
from losa.adapt.head import Head, Pool
from losa.adapt.options import SideOptions
from losa.adapt.standardise import checked_planes
from losa.features import FeatureSpec

QUERY_STD = 0.02
"""Standard deviation of the query at the start, as in the authors' code."""


class SummaryAttention(Adaptor):
    """Cross-attention of width r over the pooled tokens of every tap.

    With ``s`` the summary tokens of all taps, as many heads as there are of them:
    ``e = W_o attention(W_q LN(q), W_k LN(s), W_v LN(s)) + c``, each LN with weights of its own;
    the head sees ``e``.

    Source: ALF (arXiv 2601.09322), and the authors' code for norms, biases and the number of heads;
    what is theirs and what is ours: docs/paper.md.

    Args:
        spec: the features it will see.
        num_classes: number of logits.
        options: ``width`` is r (``None``: two thirds of the channels), ``dropout`` that of ``e``,
            ``pool`` which summary tokens there are.

    Raises:
        UsageError: the options do not fit the spec's grid.
    """

    def __init__(
        self, spec: FeatureSpec, num_classes: int = 10, *, options: SideOptions | None = None
    ) -> None:
        chosen = options or SideOptions()
        super().__init__(spec, chosen)
        self.pool = Pool(self.spec.grid, chosen.pool)
        self.dropout = chosen.dropout
        channels = spec.channels
        width = width_of(chosen, 2 * channels // 3)
        self.heads = heads_in(width, len(spec.taps) * self.pool.vectors)
        self.query = nn.Parameter(nn.init.normal_(torch.empty(1, 1, channels), std=QUERY_STD))
        self.norm_query = nn.LayerNorm(channels)
        self.norm_key = nn.LayerNorm(channels)
        self.norm_value = nn.LayerNorm(channels)
        self.to_query = nn.Linear(channels, width, bias=False)
        self.to_key = nn.Linear(channels, width, bias=False)
        self.to_value = nn.Linear(channels, width, bias=False)
        self.proj = nn.Linear(width, channels)
        self.head = Head(channels, num_classes)

    def forward(self, planes: Iterable[Float[Tensor, "b l d"]]) -> Float[Tensor, "b y"]:
        """Logits of one batch.

        Raises:
            MismatchError: the planes are not the spec's.
        """
        summaries = torch.cat(
            [
                self.pool(self.standardise(plane, position)).unflatten(1, (self.pool.vectors, -1))
                for position, plane in enumerate(checked_planes(planes, self.spec))
            ],
            dim=1,
        )
        query = self.to_query(self.norm_query(self.query)).expand(len(summaries), -1, -1)
        key = self.to_key(self.norm_key(summaries))
        value = self.to_value(self.norm_value(summaries))
        fused = self.proj(attend(query, key, value, self.heads)[:, 0])
        logits: Float[Tensor, "b y"] = self.head(
            dropped(fused, self.dropout, training=self.training)
        )
        return logits
