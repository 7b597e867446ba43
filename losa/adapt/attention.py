"""Attention and the MLP beside it: what the rivals with transformer blocks are made of."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own abbreviation
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from losa.adapt.options import SideOptions

MLP_RATIO = 4
"""Hidden units of an MLP for each of its inputs, as in every ViT here."""

HEAD_CHANNELS = 64
"""Channels of the backbone for each of its attention heads, as in the ViTs of every common size."""

NARROWEST = 8
"""Least width that an adaptor takes by itself: the LayerNorm of one unit would leave nothing."""


def width_of(options: SideOptions, default: int) -> int:
    """The width that was asked for, else an adaptor's own.

    Example:
        >>> width_of(SideOptions(), 48), width_of(SideOptions(width=2), 48)
        (48, 2)
    """
    return max(NARROWEST, default) if options.width is None else options.width


def heads_in(width: int, at_most: int) -> int:
    """The largest number of heads, ``at_most`` or fewer but at least one, that divides ``width``.

    Example:
        >>> heads_in(48, 6), heads_in(128, 6), heads_in(7, 6)
        (6, 4, 1)
    """
    return next(heads for heads in range(max(at_most, 1), 0, -1) if width % heads == 0)


def attend(
    query: Float[Tensor, "b ... r"],
    key: Float[Tensor, "b l r"],
    value: Float[Tensor, "b l r"],
    heads: int,
) -> Float[Tensor, "b ... r"]:
    """Scaled dot-product attention of several heads; ``query`` is ``[b, queries, r]``.

    Source: Attention Is All You Need (arXiv 1706.03762), eq. 1 and section 3.2.2, without the
    projections.
    """
    split = [x.reshape(*x.shape[:2], heads, -1).transpose(1, 2) for x in (query, key, value)]
    with _repeatable(query.device):
        found = F.scaled_dot_product_attention(split[0], split[1], split[2])
    return found.transpose(1, 2).flatten(2)


class FeedForward(nn.Module):
    """``fc2(GELU(fc1(x)))``, with dropout on the hidden units.

    Args:
        width: r, of input and output.
        dropout: share of the hidden units that is dropped while training.
    """

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, MLP_RATIO * width)
        self.fc2 = nn.Linear(MLP_RATIO * width, width)
        self.dropout = dropout

    def forward(self, x: Float[Tensor, "b ... r"]) -> Float[Tensor, "b ... r"]:
        """Return the branch alone; the block adds the residual."""
        hidden = F.gelu(self.fc1(x))
        found: Tensor = self.fc2(dropped(hidden, self.dropout, training=self.training))
        return found


def dropped(x: Tensor, share: float, *, training: bool) -> Tensor:
    """Dropout, which with a share of zero must not draw random numbers."""
    return F.dropout(x, share, training) if share else x


def _repeatable(device: torch.device) -> AbstractContextManager[object]:
    """Keep attention on CUDA to the kernel whose gradients have the same bits every time.

    The fused ones add up a query's gradient in whatever order their blocks end.
    """
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cuda" else nullcontext()
