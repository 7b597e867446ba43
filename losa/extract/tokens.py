"""Which tokens of a plane are kept: all of them, means over patch windows, or one mean patch."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own name for it
from jaxtyping import Float
from torch import Tensor

from losa.extract.windows import Window, kept_grid
from losa.features import TokenGrid

Pooling = Callable[[Tensor], Tensor]
"""A function from a plane ``[b l d]`` to a plane with fewer tokens."""


def parse_tokens(text: str, grid: TokenGrid) -> tuple[TokenGrid, Pooling]:
    """Grid that a token policy leaves, and the function that applies the policy to a plane.

    ``all`` keeps every token; ``pool:2x2`` (with time ``pool:1x2x2``) takes the mean over windows
    of patches; ``summary`` takes the mean of all patches. Prefix tokens are always kept. A window
    that hangs over the border averages the patches that are there.

    Raises:
        UsageError: the text is none of these, or a window's side is 0.

    Example:
        >>> after, pool = parse_tokens("pool:2x2", TokenGrid(height=3, width=4, prefix=1))
        >>> after.height, after.width, tuple(pool(torch.zeros(5, 13, 8)).shape)
        (2, 2, (5, 5, 8))
    """
    after, window = kept_grid(text, grid)
    return after, _unchanged if window is None else _window_mean(grid, window)


def _unchanged(plane: Tensor) -> Tensor:
    """Keep every token."""
    return plane


def _window_mean(grid: TokenGrid, window: Window) -> Pooling:
    """Mean over windows of patches, prefix tokens kept in front."""

    def pool(plane: Float[Tensor, "b l d"]) -> Float[Tensor, "b ... d"]:
        prefix, patches = plane[:, : grid.prefix], plane[:, grid.prefix :]
        b, _, d = patches.shape
        volume = patches.reshape(b, grid.time, grid.height, grid.width, d).movedim(-1, 1)
        # float32, because half precision would round every partial sum of a window.
        pooled = F.avg_pool3d(volume.float(), window, ceil_mode=True, count_include_pad=False)
        return torch.cat([prefix, pooled.flatten(2).mT.to(plane.dtype)], dim=1)

    return pool
