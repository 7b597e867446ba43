from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch

from losa.adapt.head import Head, Pool
from losa.errors import UsageError
from losa.features import TokenGrid
from tests.oracles import side_network as oracle
from tests.oracles import video


@pytest.mark.parametrize("name", ["cls", "mean", "cls+mean"])
@pytest.mark.parametrize("prefix", [1, 3])
def test_pooling_agrees_with_the_equations(
    name: Literal["cls", "mean", "cls+mean"], prefix: int
) -> None:
    plane = torch.randn(2, prefix + 6, 4, dtype=torch.float64)
    pool = Pool(TokenGrid(2, 3, prefix=prefix), name)
    expected = oracle.pool(plane.numpy(), name, prefix)
    np.testing.assert_allclose(pool(plane).numpy(), expected, atol=1e-14)
    assert expected.shape[1] == pool.vectors * 4


def test_auto_pools_cls_and_mean_where_there_is_a_prefix_token_else_the_mean() -> None:
    assert Pool(TokenGrid(2, 3, prefix=1), "auto").name == "cls+mean"
    assert Pool(TokenGrid(2, 3), "auto").name == "mean"


@pytest.mark.parametrize("name", ["cls", "cls+mean"])
def test_cls_of_a_grid_without_prefix_tokens_is_refused(name: Literal["cls", "cls+mean"]) -> None:
    with pytest.raises(UsageError, match=r"--pool: .* needs a prefix token"):
        Pool(TokenGrid(2, 3), name)


@pytest.mark.parametrize("name", ["cls", "mean", "cls+mean"])
@pytest.mark.parametrize("is_per_step", [True, False])
def test_the_cls_of_a_clip_is_its_own_or_the_mean_of_its_steps(
    name: Literal["cls", "mean", "cls+mean"], is_per_step: bool
) -> None:
    grid = TokenGrid(1, 2, time=4, prefix=8, is_prefix_per_step=is_per_step)
    plane = torch.randn(2, grid.num_tokens, 3, dtype=torch.float64)
    expected = video.pool(plane.numpy(), name, video.Video(4, 2, 8, is_per_step))
    np.testing.assert_allclose(Pool(grid, name)(plane).numpy(), expected, atol=1e-14)


@pytest.mark.parametrize("name", ["cls", "mean", "cls+mean"])
@pytest.mark.parametrize(
    "grid",
    [
        TokenGrid(2, 3, prefix=1),
        TokenGrid(2, 3, prefix=3),
        TokenGrid(1, 2, time=4, prefix=8, is_prefix_per_step=True),
        TokenGrid(1, 2, time=4, prefix=2),
    ],
)
def test_the_matrix_of_pooling_is_what_it_makes_of_the_identity(
    name: Literal["cls", "mean", "cls+mean"], grid: TokenGrid
) -> None:
    pool, tokens = Pool(grid, name), grid.num_tokens
    expected = pool(torch.eye(tokens)[None]).view(pool.vectors, tokens)
    torch.testing.assert_close(pool.matrix(tokens), expected)


def test_head_agrees_with_the_equations() -> None:
    torch.manual_seed(0)
    head = Head(8, 3).double()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    pooled = torch.randn(5, 8, dtype=torch.float64)
    norm_weight, norm_bias, weight, bias = (w.detach().numpy() for w in head.parameters())
    expected = oracle.head(pooled.numpy(), (norm_weight, norm_bias, weight, bias))
    np.testing.assert_allclose(head(pooled).detach().numpy(), expected, atol=1e-12)


def test_a_new_head_gives_all_classes_the_same_logit() -> None:
    assert not Head(8, 3)(torch.randn(5, 8)).any()
