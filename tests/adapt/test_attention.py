from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from losa.adapt.attention import FeedForward, attend, dropped, heads_in, width_of
from losa.adapt.options import SideOptions
from tests.adapt.rivals import array_of, pairs_of
from tests.oracles import rivals as oracle


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("queries", [1, 5])
def test_attention_agrees_with_the_equation(heads: int, queries: int) -> None:
    torch.manual_seed(0)
    query, key, value = (2 * torch.randn(3, rows, 8) for rows in (queries, 5, 5))
    expected = oracle.attention(array_of(query), array_of(key), array_of(value), heads)
    np.testing.assert_allclose(array_of(attend(query, key, value, heads)), expected, atol=1e-5)


def test_attention_agrees_with_torchs_own_layer() -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, bias=False, batch_first=True)
    query, tokens = torch.randn(3, 1, 8), torch.randn(3, 5, 8)
    expected, _ = layer(query, tokens, tokens, need_weights=False)
    to_query, to_key, to_value = layer.in_proj_weight.chunk(3)
    found = attend(query @ to_query.T, tokens @ to_key.T, tokens @ to_value.T, 2)
    torch.testing.assert_close(layer.out_proj(found), expected)


@pytest.mark.parametrize("at_most", range(14))
@pytest.mark.parametrize("width", [1, 7, 48, 96])
def test_heads_are_the_largest_number_within_bounds_that_divides_the_width(
    width: int, at_most: int
) -> None:
    dividing = [heads for heads in range(1, at_most + 1) if width % heads == 0]
    assert heads_in(width, at_most) == max(dividing, default=1)


def test_a_feed_forward_agrees_with_the_equation_and_drops_while_training_only() -> None:
    torch.manual_seed(0)
    mlp = FeedForward(6, dropout=0.5).eval()
    x = torch.randn(2, 3, 6)
    pairs = pairs_of(mlp)
    expected = oracle.feed_forward(array_of(x), pairs["fc1"], pairs["fc2"])
    np.testing.assert_allclose(array_of(mlp(x)), expected, atol=1e-6)
    assert not torch.allclose(mlp.train()(x), mlp.eval()(x))


def test_dropout_of_nothing_draws_no_random_numbers() -> None:
    x = torch.ones(1000)
    before = torch.get_rng_state()
    assert dropped(x, 0.0, training=True) is x
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(dropped(x, 0.5, training=False), x)
    assert 400 < int((dropped(x, 0.5, training=True) == 0).sum()) < 600


def test_no_adaptor_is_narrower_than_eight_by_itself() -> None:
    assert [width_of(SideOptions(), default) for default in (0, 2, 8, 48)] == [8, 8, 8, 48]
    assert width_of(SideOptions(width=2), 48) == 2
