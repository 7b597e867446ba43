"""Which tokens of a plane are kept: all of them, means over patch windows, or one mean patch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

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
    of patches; ``summary`` takes the mean of all patches, or of those of each time step where each
    has its own prefix tokens. Prefix tokens are kept, or averaged over the time steps that become
    one. A window that hangs over the border averages what is there.

    Raises:
        UsageError: the text is none of these, or a window's side is 0.

    Example:
        >>> after, pool = parse_tokens("pool:2x2", TokenGrid(height=3, width=4, prefix=1))
        >>> after.height, after.width, tuple(pool(torch.zeros(5, 13, 8)).shape)
        (2, 2, (5, 5, 8))
    """
    after, window = kept_grid(text, grid)
    return after, _unchanged if window is None else _window_mean(grid, window)


def parse_frame_tokens(
    text: str, frame: TokenGrid, clip: TokenGrid
) -> tuple[tuple[TokenGrid, Pooling], tuple[TokenGrid, Pooling]]:
    """A token policy parted into what is done to each frame, and to the clip after that.

    A mean over rows and columns and then over frames is the mean over all three, for a window has
    as many patches of each of its frames. So no plane of a whole clip ever holds all tokens.

    Args:
        text: the policy, as for :func:`parse_tokens`.
        frame: grid of one frame.
        clip: grid of the clip that has such frames as its time steps.

    Raises:
        UsageError: as :func:`parse_tokens`.
    """
    after, window = kept_grid(text, clip)
    if window is None:
        return (frame, _unchanged), (after, _unchanged)
    time, height, width = window
    kept = replace(frame, height=after.height, width=after.width)
    within = _window_mean(frame, (1, height, width))
    if time == 1:
        return (kept, within), (after, _unchanged)
    narrow = replace(clip, height=after.height, width=after.width)
    return (kept, within), (after, _window_mean(narrow, (time, 1, 1)))


def _unchanged(plane: Tensor) -> Tensor:
    """Keep every token."""
    return plane


def _window_mean(grid: TokenGrid, window: Window) -> Pooling:
    """Mean over windows of patches, prefix tokens in front."""

    def pool(plane: Float[Tensor, "b l d"]) -> Float[Tensor, "b ... d"]:
        prefix, patches = plane[:, : grid.prefix], plane[:, grid.prefix :]
        if grid.is_prefix_per_step and window[0] > 1:
            prefix = _mean_over(prefix, (grid.time, grid.step_prefix, 1), (window[0], 1, 1))
        pooled = _mean_over(patches, (grid.time, grid.height, grid.width), window)
        return torch.cat([prefix, pooled], dim=1)

    return pool


def _mean_over(
    tokens: Float[Tensor, "b l d"], sides: Window, window: Window
) -> Float[Tensor, "b ... d"]:
    """Mean over windows of tokens that lie in a box of these sides."""
    if not tokens.shape[1]:
        return tokens
    volume = torch.unflatten(tokens, 1, sides).movedim(-1, 1)
    # float32, because half precision would round every partial sum of a window.
    pooled = F.avg_pool3d(volume.float(), window, ceil_mode=True, count_include_pad=False)
    return pooled.flatten(2).mT.to(tokens.dtype)
