"""Ladder side-tuning: low-width transformer blocks beside the backbone, fed through gates."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from losa.adapt.adaptor import Adaptor
from losa.adapt.attention import HEAD_CHANNELS, FeedForward, attend, heads_in, width_of
from losa.adapt.head import Head, Pool
from losa.adapt.options import SideOptions
from losa.adapt.standardise import checked_planes
from losa.features import FeatureSpec

REDUCTION = 8
"""How many times narrower than the backbone the ladder is unless told otherwise."""

TEMPERATURE = 0.1
"""T of the gates, as in the authors' code."""


class LST(Adaptor):
    """A ladder of transformer blocks of width r, each of which takes in one tap.

    ``s_1 = Block_1(D_1 b_1)``, ``s_i = Block_i(mu_i s_{i-1} + (1 - mu_i) D_i b_i)`` with
    ``mu_i = sigmoid(a_i / T)``, ``a_i = 0`` at the start; the head sees ``pool(U LN(s_k))``.

    Source: LST (arXiv 2206.06522), section 3.2, and the authors' code for T and for where the
    gates and the norm lie; what is theirs and what is ours: docs/paper.md.

    Args:
        spec: the features it will see.
        num_classes: number of logits.
        options: ``width`` is r (``None``: an eighth of the channels), ``dropout`` that of the
            blocks' hidden units, ``pool`` what the head sees.

    Raises:
        UsageError: the options do not fit the spec's grid.
    """

    def __init__(
        self, spec: FeatureSpec, num_classes: int = 10, *, options: SideOptions | None = None
    ) -> None:
        chosen = options or SideOptions()
        super().__init__(spec, chosen)
        self.pool = Pool(self.spec.grid, chosen.pool)
        taps, _, channels = self.spec.shape
        width = width_of(chosen, channels // REDUCTION)
        heads = heads_in(width, channels // HEAD_CHANNELS)
        self.downs = nn.ModuleList(nn.Linear(channels, width) for _ in range(taps))
        # The first tap takes the place of the embeddings, so it has nothing to be gated against.
        self.gates = nn.Parameter(torch.zeros(taps - 1))
        self.blocks = nn.ModuleList(SideBlock(width, heads, chosen.dropout) for _ in range(taps))
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, channels)
        self.head = Head(self.pool.vectors * channels, num_classes)

    def forward(self, planes: Iterable[Float[Tensor, "b l d"]]) -> Float[Tensor, "b y"]:
        """Logits of one batch.

        Raises:
            MismatchError: the planes are not the spec's.
        """
        first, *others = checked_planes(planes, self.spec)
        state: Float[Tensor, "b l r"] = self.blocks[0](self._narrow(first, 0))
        shares = torch.sigmoid(self.gates / TEMPERATURE)
        for position, plane in enumerate(others, start=1):
            share = shares[position - 1]
            mixed = share * state + (1 - share) * self._narrow(plane, position)
            state = self.blocks[position](mixed)
        # Pooling is linear, so the tokens are pooled while they are narrow.
        pooled = self.pool(self.norm(state)).unflatten(1, (self.pool.vectors, -1))
        logits: Float[Tensor, "b y"] = self.head(self.up(pooled).flatten(1))
        return logits

    def _narrow(self, plane: Float[Tensor, "b l d"], position: int) -> Float[Tensor, "b l r"]:
        """``D_i b_i``, not left in half precision: the blocks sum up in what planes come in."""
        standard = self.standardise(plane, position)
        narrow: Float[Tensor, "b l r"] = self.downs[position](standard).to(standard.dtype)
        return narrow


class SideBlock(nn.Module):
    """A pre-norm transformer block: ``u = x + attention(LN(x))``, ``v = u + MLP(LN(u))``.

    Source: ViT (arXiv 2010.11929), eq. 2 and 3.

    Args:
        width: r.
        heads: of the attention; they divide the width.
        dropout: share of the MLP's hidden units that is dropped while training.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = FeedForward(width, dropout)

    def forward(self, x: Float[Tensor, "b l r"]) -> Float[Tensor, "b l r"]:
        """Mix the tokens, then the channels."""
        query, key, value = self.qkv(self.norm1(x)).chunk(3, dim=2)
        u: Float[Tensor, "b l r"] = x + self.proj(attend(query, key, value, self.heads))
        v: Float[Tensor, "b l r"] = u + self.mlp(self.norm2(u))
        return v
