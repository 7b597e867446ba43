"""The low-rank mixer: two bottleneck MLPs on a plane, along its channels and along its tokens."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own abbreviation
from jaxtyping import Float
from torch import Tensor, nn

Order = Literal["channel-token", "token-channel"]


class ChannelMixing(nn.Module):
    """Low-rank mixing along channels: ``W_up GELU(W_down LN(x))``, the same for every token.

    Args:
        channels: width d of the mixed axis.
        rank: width r of the bottleneck.
        norm: whether each token is normalised over its channels first (no affine weights).
        dropout: share of the r hidden units that is dropped while training.
    """

    def __init__(
        self, channels: int, rank: int, *, norm: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.down, self.up = _low_rank_weights(channels, rank)
        self.norm = norm
        self.dropout = dropout

    def forward(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        """Return the branch alone; the mixer adds the residual."""
        hidden: Float[Tensor, "b l r"] = F.linear(_normed(x, norm=self.norm), self.down)
        return F.linear(_activated(hidden, self), self.up)


class TokenMixing(nn.Module):
    """Low-rank mixing along tokens: ``W_up GELU(W_down LN(x))``, the same for every channel.

    Prefix tokens take part like any other. The norm is over channels, as in MLP-Mixer, so that it
    means the same in both branches.

    Args:
        tokens: width l of the mixed axis, prefix tokens included.
        rank: width r of the bottleneck.
        norm: whether each token is normalised over its channels first (no affine weights).
        dropout: share of the r hidden units that is dropped while training.
    """

    def __init__(self, tokens: int, rank: int, *, norm: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.down, self.up = _low_rank_weights(tokens, rank)
        self.norm = norm
        self.dropout = dropout

    def forward(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        """Return the branch alone; the mixer adds the residual."""
        # einsum, not matmul: matmul folds the batch into one GEMM and copies the plane to do it.
        hidden: Float[Tensor, "b r d"] = torch.einsum(
            "rl,bld->brd", self.down, _normed(x, norm=self.norm)
        )
        return torch.einsum("lr,brd->bld", self.up, _activated(hidden, self))


class Mixer(nn.Module):
    """Channel mixing and token mixing, one after the other, each on its own residual.

    ``u = x + f_channel(x)``, ``v = u + f_token(u)``; ``2dr + 2lr`` parameters. Both up-projections
    are zero at the start, so that a new mixer is the identity.

    Source: LoSA (arXiv 2402.02887), the low-rank mixer as its summaries describe it; docs/paper.md.

    Args:
        tokens: l, prefix tokens included.
        channels: d.
        ranks: widths of the channel and of the token bottleneck.
        order: which axis is mixed first.
        norm: whether each branch normalises its input.
        dropout: share of the hidden units that is dropped while training.

    Example:
        >>> mixer = Mixer(tokens=197, channels=768, ranks=(8, 8))
        >>> sum(weight.numel() for weight in mixer.parameters()) == 2 * 768 * 8 + 2 * 197 * 8
        True
    """

    def __init__(
        self,
        tokens: int,
        channels: int,
        ranks: tuple[int, int],
        *,
        order: Order = "channel-token",
        norm: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.channel = ChannelMixing(channels, ranks[0], norm=norm, dropout=dropout)
        self.token = TokenMixing(tokens, ranks[1], norm=norm, dropout=dropout)
        self.order = order

    def scale_start(self, factor: float) -> None:
        """Multiply both down-projections, as they are at the start, by ``factor``."""
        with torch.no_grad():
            self.channel.down.mul_(factor)
            self.token.down.mul_(factor)

    def forward(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        """Mix along both axes in the chosen order."""
        first: nn.Module = self.channel
        second: nn.Module = self.token
        if self.order == "token-channel":
            first, second = second, first
        u: Float[Tensor, "b l d"] = x + first(x)
        v: Float[Tensor, "b l d"] = u + second(u)
        return v


def _low_rank_weights(width: int, rank: int) -> tuple[nn.Parameter, nn.Parameter]:
    """``W_down [r, width]`` from N(0, 1/width) and ``W_up [width, r]`` of zeros.

    A normalised input then gives hidden units of variance one, whatever the width.
    """
    down = nn.init.normal_(torch.empty(rank, width), std=width**-0.5)
    return nn.Parameter(down), nn.Parameter(torch.zeros(width, rank))


def _normed(x: Float[Tensor, "b l d"], *, norm: bool) -> Float[Tensor, "b l d"]:
    return F.layer_norm(x, x.shape[-1:]) if norm else x


def _activated(hidden: Tensor, mixing: ChannelMixing | TokenMixing) -> Tensor:
    """Exact GELU, then dropout, which with a share of zero must not draw random numbers."""
    hidden = F.gelu(hidden)
    return F.dropout(hidden, mixing.dropout, mixing.training) if mixing.dropout else hidden
