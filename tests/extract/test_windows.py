"""Claims of losa.extract.windows: token policies as numbers."""

from __future__ import annotations

import pytest

from losa.errors import UsageError
from losa.extract.windows import kept_grid
from losa.features import TokenGrid

GRID = TokenGrid(height=5, width=4, time=2, prefix=3)


@pytest.mark.parametrize(
    ("policy", "tokens", "window"),
    [("all", 43, None), ("pool:2x2", 3 + 2 * 3 * 2, (1, 2, 2)), ("pool:2x5x3", 3 + 2, (2, 5, 3)),
     ("pool:9x9", 3 + 2, (1, 5, 4)), ("summary", 4, (2, 5, 4))],
)  # fmt: skip
def test_windows_leave_this_many_tokens(
    policy: str, tokens: int, window: tuple[int, int, int] | None
) -> None:
    grid, found = kept_grid(policy, GRID)
    assert (grid.num_tokens, grid.prefix, found) == (tokens, 3, window)


@pytest.mark.parametrize(
    ("policy", "prefix", "patches"),
    [("all", 8, 80), ("pool:2x2", 8, 4 * 3 * 2), ("pool:3x5x4", 4, 2), ("summary", 8, 4)],
)
def test_prefix_tokens_of_time_steps_go_with_their_steps(
    policy: str, prefix: int, patches: int
) -> None:
    clip = TokenGrid(height=5, width=4, time=4, prefix=8, is_prefix_per_step=True)
    grid, _ = kept_grid(policy, clip)
    assert (grid.prefix, grid.num_patches, grid.step_prefix) == (prefix, patches, 2)


@pytest.mark.parametrize("policy", ["", "pool", "pool:0x2", "pool:2", "mean", "pool:2x2x2x2"])
def test_what_is_no_policy_is_refused(policy: str) -> None:
    with pytest.raises(UsageError, match="--tokens"):
        kept_grid(policy, GRID)
