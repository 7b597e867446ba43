from __future__ import annotations

import numpy as np
import pytest
import torch

from losa.errors import UsageError
from losa.extract.tokens import parse_frame_tokens, parse_tokens
from losa.features import TokenGrid


def window_means(plane: np.ndarray, grid: TokenGrid, window: tuple[int, int, int]) -> np.ndarray:
    """Prefix tokens, then the mean of every window of patches, one by one."""
    prefix, patches = plane[:, : grid.prefix], plane[:, grid.prefix :]
    volume = patches.reshape(len(plane), grid.time, grid.height, grid.width, -1)
    means = [
        volume[:, t : t + window[0], h : h + window[1], w : w + window[2]].mean((1, 2, 3))
        for t in range(0, grid.time, window[0])
        for h in range(0, grid.height, window[1])
        for w in range(0, grid.width, window[2])
    ]
    return np.concatenate([prefix, np.stack(means, 1)], 1)


@pytest.mark.parametrize(
    ("text", "grid", "window", "after"),
    [
        ("pool:2x2", TokenGrid(4, 6, prefix=1), (1, 2, 2), TokenGrid(2, 3, prefix=1)),
        ("pool:2x3", TokenGrid(5, 7, prefix=5), (1, 2, 3), TokenGrid(3, 3, prefix=5)),
        ("pool:1x2x2", TokenGrid(3, 3, time=4), (1, 2, 2), TokenGrid(2, 2, time=4)),
        ("pool:2x2x2", TokenGrid(4, 4, time=3), (2, 2, 2), TokenGrid(2, 2, time=2)),
        ("pool:99x99", TokenGrid(3, 4, prefix=1), (1, 3, 4), TokenGrid(1, 1, prefix=1)),
        ("summary", TokenGrid(3, 4, time=2, prefix=1), (2, 3, 4), TokenGrid(1, 1, prefix=1)),
    ],
)
def test_a_window_gives_the_mean_of_the_patches_that_are_there(
    text: str, grid: TokenGrid, window: tuple[int, int, int], after: TokenGrid
) -> None:
    plane = np.random.default_rng(0).standard_normal((2, grid.num_tokens, 5)).astype(np.float32)
    found, pool = parse_tokens(text, grid)
    assert found == after
    np.testing.assert_allclose(
        pool(torch.from_numpy(plane)).numpy(), window_means(plane, grid, window), atol=1e-6
    )


def test_prefix_tokens_of_time_steps_that_become_one_are_averaged() -> None:
    grid = TokenGrid(2, 1, time=3, prefix=6, is_prefix_per_step=True)
    plane = torch.randn(2, 12, 4)
    after, pool = parse_tokens("pool:2x2x1", grid)
    assert after == TokenGrid(1, 1, time=2, prefix=4, is_prefix_per_step=True)
    own, patches = plane[:, :6].reshape(2, 3, 2, 4), plane[:, 6:].reshape(2, 3, 2, 4)
    wanted = [own[:, :2].mean(1), own[:, 2], patches[:, :2].mean((1, 2))[:, None]]
    wanted += [patches[:, 2].mean(1)[:, None]]
    torch.testing.assert_close(pool(plane), torch.cat(wanted, dim=1))


def test_a_policy_in_two_parts_is_the_same_policy() -> None:
    frame = TokenGrid(5, 4, prefix=2)
    clip = TokenGrid(5, 4, time=7, prefix=14, is_prefix_per_step=True)
    plane = torch.randn(3, clip.num_tokens, 6)
    own, patches = plane[:, :14].reshape(3, 7, 2, 6), plane[:, 14:].reshape(3, 7, 20, 6)
    frames = torch.cat([own, patches], dim=2).flatten(0, 1)
    for text in ("all", "pool:2x3", "pool:3x2x2", "pool:2x1x1", "summary"):
        wanted, whole = parse_tokens(text, clip)
        (kept, within), (after, over_time) = parse_frame_tokens(text, frame, clip)
        assert after == wanted
        each = torch.unflatten(within(frames), 0, (3, 7))
        assert each.shape[2] == kept.num_tokens
        parts = [each[:, :, :2].flatten(1, 2), each[:, :, 2:].flatten(1, 2)]
        torch.testing.assert_close(over_time(torch.cat(parts, dim=1)), whole(plane))


def test_all_keeps_every_token_and_copies_nothing() -> None:
    grid = TokenGrid(2, 2, prefix=1)
    plane = torch.randn(3, 5, 4)
    after, pool = parse_tokens("all", grid)
    assert after == grid
    assert pool(plane) is plane


def test_half_precision_planes_are_averaged_in_float32() -> None:
    _, pool = parse_tokens("summary", TokenGrid(64, 64))
    plane = torch.full((1, 4096, 1), 100.0, dtype=torch.bfloat16)
    assert pool(plane).dtype == torch.bfloat16
    assert pool(plane).item() == 100.0


@pytest.mark.parametrize("text", ["", "pool", "pool:2", "pool:0x2", "pool:2x2x2x2", "mean", "-1"])
def test_what_is_no_token_policy_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match=r"--tokens: .*pool:2x2"):
        parse_tokens(text, TokenGrid(4, 4, prefix=1))


@pytest.mark.parametrize("sides", [f"{'9' * 5000}x2", f"2x{'9' * 5000}", f"{'9' * 5000}x2x2"])
def test_a_window_of_thousands_of_digits_is_refused_in_a_short_line(sides: str) -> None:
    with pytest.raises(UsageError, match=r"--tokens: .*pool:2x2") as caught:
        parse_tokens(f"pool:{sides}", TokenGrid(4, 4, prefix=1))
    assert len(str(caught.value)) < 300
