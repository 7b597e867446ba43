"""The low-rank mixer: two bottleneck MLPs on a plane, along its channels and along its tokens.

On the grid of a video the tokens are mixed along space, within each time step, and along time, at
each position; docs/video.md, section "Mixing".
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own abbreviation
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from losa.adapt.streamed import Axis, Pair
from losa.features import TokenGrid

Order = Literal["channel-token", "token-channel"]
TokenOrder = Literal["space-time", "time-space"]


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


class SpaceMixing(nn.Module):
    """Low-rank mixing along the tokens of a time step, the same for every step and channel.

    A step's tokens are its prefix tokens and its patches. A clip's prefix tokens are among those of
    every step, and their update is the mean of what the steps say.

    Args:
        grid: of the plane; the weights are as wide as the tokens of a step.
        rank: width r of the bottleneck.
        norm: whether each token is normalised over its channels first (no affine weights).
        dropout: share of the r hidden units that is dropped while training.
    """

    def __init__(
        self, grid: TokenGrid, rank: int, *, norm: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.grid = grid
        self.down, self.up = _low_rank_weights(grid.step_prefix + grid.positions, rank)
        self.norm = norm
        self.dropout = dropout

    def forward(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        """Return the branch alone; the mixer adds the residual."""
        grid, count = self.grid, self.grid.step_prefix
        z = _normed(x, norm=self.norm)
        patches = torch.unflatten(z[:, grid.prefix :], 1, (grid.time, -1))
        hidden: Float[Tensor, "b t r d"] = _down_each(self.down[:, count:], patches)
        if count:
            # Of a clip's prefix tokens there is one set, which every step sees.
            sets = grid.time if grid.is_prefix_per_step else 1
            prefix = torch.unflatten(z[:, : grid.prefix], 1, (sets, -1))
            hidden = hidden + _down_each(self.down[:, :count], prefix)
        hidden = _activated(hidden, self)
        update = _up_each(self.up[count:], hidden).flatten(1, 2)
        if not count:
            return update
        of_prefix = hidden if grid.is_prefix_per_step else hidden.mean(1, keepdim=True)
        return torch.cat([_up_each(self.up[:count], of_prefix).flatten(1, 2), update], dim=1)


class TimeMixing(nn.Module):
    """Low-rank mixing along time, the same for every position and channel.

    A step's prefix tokens are positions like its patches. A clip's prefix tokens have no time, and
    their update is zero.

    Args:
        grid: of the plane; the weights are as wide as it has time steps.
        rank: width r of the bottleneck.
        norm: whether each token is normalised over its channels first (no affine weights).
        dropout: share of the r hidden units that is dropped while training.
    """

    def __init__(
        self, grid: TokenGrid, rank: int, *, norm: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.grid = grid
        self.down, self.up = _low_rank_weights(grid.time, rank)
        self.norm = norm
        self.dropout = dropout

    def forward(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        """Return the branch alone; the mixer adds the residual."""
        prefix = self.grid.prefix
        z = _normed(x, norm=self.norm)
        update = self._mixed(z[:, prefix:])
        if not prefix:
            return update
        if self.grid.is_prefix_per_step:
            return torch.cat([self._mixed(z[:, :prefix]), update], dim=1)
        return F.pad(update, (0, 0, prefix, 0))

    def _mixed(self, tokens: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        steps: Float[Tensor, "b t ..."] = torch.unflatten(tokens, 1, (self.grid.time, -1)).flatten(
            2
        )
        hidden = _activated(torch.einsum("rt,bte->bre", self.down, steps), self)
        return torch.einsum("tr,bre->bte", self.up, hidden).reshape(tokens.shape)


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


class FactorisedMixer(nn.Module):
    """Channel mixing, then mixing along space and along time, each on its own residual.

    ``u = x + f_channel(x)``, ``v = u + f_space(u)``, ``w = v + f_time(v)``; ``2dr + 2sr + 2tr``
    parameters, where s counts a step's prefix tokens too. A new mixer is the identity.

    Source: LoSA (arXiv 2402.02887) mixes space and time in turn; docs/paper.md.

    Args:
        channel: f_channel.
        space: f_space, or ``None`` where steps are not mixed within themselves.
        time: f_time, or ``None`` where steps do not see each other.
        order: whether channels or tokens are mixed first.
        token_order: whether space or time is mixed first.

    Example:
        >>> grid = TokenGrid(16, 16, time=8, prefix=8, is_prefix_per_step=True)
        >>> parts = ChannelMixing(384, 8), SpaceMixing(grid, 8), TimeMixing(grid, 4)
        >>> mixer = FactorisedMixer(*parts)
        >>> sum(weight.numel() for weight in mixer.parameters()) == 2 * (
        ...     384 * 8 + (16 * 16 + 1) * 8 + 8 * 4
        ... )
        True
    """

    def __init__(
        self,
        channel: ChannelMixing,
        space: SpaceMixing | None,
        time: TimeMixing | None,
        *,
        order: Order = "channel-token",
        token_order: TokenOrder = "space-time",
    ) -> None:
        super().__init__()
        self.channel, self.space, self.time = channel, space, time
        self.order = order
        self.token_order = token_order

    def scale_start(self, factor: float) -> None:
        """Multiply all down-projections, as they are at the start, by ``factor``."""
        with torch.no_grad():
            for branch in self._branches():
                branch.down.mul_(factor)

    def forward(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        """Mix branch by branch, as the equations read; what lies between is computed twice.

        A plane of a clip is many times that of an image, and autograd would keep one a branch.
        """
        if not torch.is_grad_enabled():
            return self._added(x)
        has_dropout = self.training and self.channel.dropout > 0
        found: Tensor = checkpoint(
            self._added, x, use_reentrant=False, preserve_rng_state=has_dropout
        )
        return found

    @property
    def axes(self) -> tuple[Axis, ...]:
        """What its branches mix along, in their order."""
        return tuple(_axis(branch) for branch in self._branches())

    @property
    def weights(self) -> list[Pair]:
        """Down- and up-projections of its branches, in their order."""
        return [(branch.down, branch.up) for branch in self._branches()]

    def _added(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        for branch in self._branches():
            x = x + branch(x)
        return x

    def _branches(self) -> list[ChannelMixing | SpaceMixing | TimeMixing]:
        tokens = [branch for branch in (self.space, self.time) if branch is not None]
        if self.token_order == "time-space":
            tokens.reverse()
        return [self.channel, *tokens] if self.order == "channel-token" else [*tokens, self.channel]


def _axis(branch: ChannelMixing | SpaceMixing | TimeMixing) -> Axis:
    if isinstance(branch, ChannelMixing):
        return "channel"
    return "space" if isinstance(branch, SpaceMixing) else "time"


def _down_each(down: Float[Tensor, "r s"], x: Float[Tensor, "b t s d"]) -> Float[Tensor, "b t r d"]:
    return torch.einsum("rs,btsd->btrd", down, x)


def _up_each(
    up: Float[Tensor, "s r"], hidden: Float[Tensor, "b t r d"]
) -> Float[Tensor, "b t s d"]:
    return torch.einsum("sr,btrd->btsd", up, hidden)


def _low_rank_weights(width: int, rank: int) -> tuple[nn.Parameter, nn.Parameter]:
    """``W_down [r, width]`` from N(0, 1/width) and ``W_up [width, r]`` of zeros.

    A normalised input then gives hidden units of variance one, whatever the width.
    """
    down = nn.init.normal_(torch.empty(rank, width), std=width**-0.5)
    return nn.Parameter(down), nn.Parameter(torch.zeros(width, rank))


def _normed(x: Float[Tensor, "b l d"], *, norm: bool) -> Float[Tensor, "b l d"]:
    return F.layer_norm(x, x.shape[-1:]) if norm else x


def _activated(
    hidden: Tensor, mixing: ChannelMixing | TokenMixing | SpaceMixing | TimeMixing
) -> Tensor:
    """Exact GELU, then dropout, which with a share of zero must not draw random numbers."""
    hidden = F.gelu(hidden)
    return F.dropout(hidden, mixing.dropout, mixing.training) if mixing.dropout else hidden
