from __future__ import annotations

import numpy as np
import pytest
import torch

from losa.adapt import folding
from losa.adapt.folding import FoldedPlanes, Residual, down, down_gradients, pieces

K, B, L, D = 3, 5, 4, 6


def random_planes() -> tuple[FoldedPlanes, list[np.ndarray]]:
    """int8 values with scales, gain and shift; and the standardised planes they mean."""
    generator = torch.Generator().manual_seed(0)
    values = tuple(
        torch.randint(-127, 128, (B, L, D), generator=generator, dtype=torch.int8) for _ in range(K)
    )
    gain, shift = torch.rand(2, K, D, generator=generator, dtype=torch.float64)
    scales = torch.rand(K, B, L, generator=generator, dtype=torch.float64) / 64
    planes = FoldedPlanes(values, gain, shift, torch.float64, scales)
    standard = [
        gain[tap].numpy() * scales[tap].numpy()[..., None] * values[tap].numpy()
        + shift[tap].numpy()
        for tap in range(K)
    ]
    return planes, standard


def bases(residual: Residual, x: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """What updates are added to in each mixer, and before the head: the residual's equation."""
    if residual == "refine":
        return x, x[-1]
    if residual == "sum":
        sums = list(np.cumsum(x, axis=0))
        return sums, sums[-1]
    return [each + x[0] for each in x], x[0]


@pytest.mark.parametrize("piece_bytes", [1, 2**20])
@pytest.mark.parametrize("residual", ["refine", "sum", "stream"])
def test_products_and_their_gradients_are_those_of_standardised_planes(
    residual: Residual, piece_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding, "PIECE_BYTES", piece_bytes)
    planes, x = random_planes()
    each, last = bases(residual, x)
    generator = np.random.default_rng(1)
    channel_down, token_down = generator.normal(size=(K, 2, D)), generator.normal(size=(K, 3, L))
    pooling = generator.normal(size=(2, L))
    h, g, pooled = down(
        *(planes, residual), *map(torch.from_numpy, (channel_down, token_down, pooling))
    )
    of_h, of_g = generator.normal(size=(K, 2, B, L)), generator.normal(size=(K, 3, B, D))
    for_channels, for_tokens = down_gradients(
        planes, residual, torch.from_numpy(of_h), torch.from_numpy(of_g)
    )
    for tap, base in enumerate(each):
        np.testing.assert_allclose(h[tap], np.einsum("rd,bld->rbl", channel_down[tap], base))
        np.testing.assert_allclose(g[tap], np.einsum("rl,bld->rbd", token_down[tap], base))
        np.testing.assert_allclose(for_channels[tap], np.einsum("rbl,bld->rd", of_h[tap], base))
        np.testing.assert_allclose(for_tokens[tap], np.einsum("rbd,bld->rl", of_g[tap], base))
    np.testing.assert_allclose(pooled, np.einsum("rl,bld->rbd", pooling, last))


def test_pieces_cover_every_sample_of_every_tap_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "PIECE_BYTES", 2 * L * D * 8)
    planes, _ = random_planes()
    seen = [
        (piece.tap, row) for piece in pieces(planes, "refine") for row in range(B)[piece.samples]
    ]
    assert sorted(seen) == [(tap, row) for tap in range(K) for row in range(B)]
