from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from losa.adapt import folding, fused
from losa.adapt.adaptor import LoSA
from losa.adapt.folding import Residual
from losa.adapt.mixer import Order
from losa.adapt.options import SideOptions
from losa.features import STORE_DTYPES, FeatureSpec, StoreDtype, TokenGrid
from losa.precision import EncodedPlanes, encode


def trained(spec: FeatureSpec, options: SideOptions, dtype: torch.dtype = torch.float64) -> LoSA:
    """A network whose weights and statistics all have a value."""
    torch.manual_seed(5)
    adaptor = LoSA(spec, num_classes=3, options=options)
    for weight in adaptor.parameters():
        nn.init.normal_(weight, std=0.3)
    taps, _, channels = spec.shape
    adaptor.standardise.load(torch.randn(taps, channels), torch.rand(taps, channels) + 0.5)
    return adaptor.to(dtype)


def gradients(adaptor: LoSA, logits: Tensor) -> dict[str, Tensor]:
    """Gradients of a loss that weighs all logits differently."""
    adaptor.zero_grad(set_to_none=True)
    torch.autograd.backward((logits * torch.arange(logits.numel()).view_as(logits)).sum())
    return {name: w.grad for name, w in adaptor.named_parameters() if w.grad is not None}


def relative(found: Tensor, expected: Tensor) -> float:
    found, expected = found.detach(), expected.detach()
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


ORDERS = get_args(Order)
RESIDUALS = get_args(Residual)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("residual", RESIDUALS)
def test_gradients_are_those_of_finite_differences(order: Order, residual: Residual) -> None:
    options = SideOptions(rank=2, token_rank=1, order=order, residual=residual)
    spec = FeatureSpec("tiny", (1, 3, 5), TokenGrid(1, 2, prefix=1), 4)
    adaptor = trained(spec, options)
    names = [name for name, _ in adaptor.named_parameters()]
    planes = torch.randn(3, 2, 3, 4, dtype=torch.float64)

    def logits(*weights: Tensor) -> Tensor:
        found = torch.func.functional_call(adaptor, dict(zip(names, weights, strict=True)), planes)
        assert isinstance(found, Tensor)
        return found

    # Along one random direction of all weights at once, and not one weight after another.
    assert torch.autograd.gradcheck(logits, tuple(adaptor.parameters()), fast_mode=True)


@settings(max_examples=25, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(0, 2)),
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(2, 9)),
    ranks=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    order=st.sampled_from(ORDERS),
    residual=st.sampled_from(RESIDUALS),
)
def test_any_shape_gives_the_plain_modules_logits_and_gradients(
    grid: tuple[int, int, int],
    sizes: tuple[int, int, int],
    ranks: tuple[int, int],
    order: Order,
    residual: Residual,
) -> None:
    (height, width, prefix), (taps, batch, channels) = grid, sizes
    tokens = TokenGrid(height, width, prefix=prefix)
    spec = FeatureSpec("any", tuple(range(taps)), tokens, channels)
    adaptor = trained(spec, SideOptions(*ranks, order=order, residual=residual))
    planes = torch.randn(taps, batch, *spec.shape[1:], dtype=torch.float64)
    # The head divides by deviations that may be tiny, hence no closer.
    torch.testing.assert_close(adaptor(planes), adaptor.plain(planes), rtol=1e-6, atol=1e-6)
    found, expected = (gradients(adaptor, f(planes)) for f in (adaptor, adaptor.plain))
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


SPEC = FeatureSpec("vit", (2, 5, 8, 11), TokenGrid(4, 4, prefix=1), 48)


def stored(dtype: StoreDtype, spec: FeatureSpec = SPEC, batch: int = 6) -> EncodedPlanes:
    """A batch as a store of that dtype would give it; float16 with a power of two for a tap."""
    taps, tokens, channels = spec.shape
    generator = torch.Generator().manual_seed(2)
    exponents = (0, 3, *[0] * (taps - 2)) if dtype == "float16" else (0,) * taps
    quantiser = torch.rand(taps, 2, channels, generator=generator) + 0.5
    each = [
        encode(torch.randn(batch, tokens, channels, generator=generator), dtype, exponent, quantum)
        for exponent, quantum in zip(exponents, quantiser, strict=True)
    ]
    scales = [found.scales for found in each if found.scales is not None]
    return EncodedPlanes(
        torch.stack([found.values for found in each]),
        dtype,
        exponents,
        torch.stack(scales) if scales else None,
        quantiser if scales else None,
    )


@pytest.mark.parametrize("piece_bytes", [1, 2**21])
@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize("dtype", STORE_DTYPES)
def test_stored_planes_give_in_float32_what_decoded_ones_give_the_plain_module(
    dtype: StoreDtype, residual: Residual, piece_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding, "PIECE_BYTES", piece_bytes)
    adaptor = trained(SPEC, SideOptions(rank=4, token_rank=3, residual=residual), torch.float32)
    planes = stored(dtype)
    found, expected = adaptor(planes), adaptor.plain(planes.decoded())
    assert relative(found, expected) < 1e-5
    ours, theirs = gradients(adaptor, found), gradients(adaptor, expected)
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        assert relative(gradient, theirs[name]) < 2e-5, name


def test_a_backward_keeps_little_more_than_the_low_rank_hidden_units() -> None:
    adaptor = trained(SPEC, SideOptions(rank=4), torch.float32)
    planes = stored("float16", batch=8)
    known = {value.data_ptr() for value in (*planes.values, *adaptor.parameters())}
    kept: list[int] = []

    def keep(value: Tensor) -> Tensor:
        if value.data_ptr() not in known and 8 in value.shape:
            kept.append(value.nbytes)
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        adaptor(planes)
    taps, tokens, channels = SPEC.shape
    hidden_bytes = 4 * taps * 4 * (tokens + channels) * 8
    assert hidden_bytes <= sum(kept) <= 1.5 * hidden_bytes


def test_planes_that_changed_before_the_backward_are_noticed() -> None:
    adaptor = trained(SPEC, SideOptions(rank=4), torch.float32)
    planes = torch.randn(4, 2, *SPEC.shape[1:])
    loss = adaptor(planes).sum()
    planes.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.backward(loss)


def test_planes_that_learn_get_the_gradient_of_the_plain_module() -> None:
    adaptor = trained(SPEC, SideOptions(rank=4))
    planes = torch.randn(4, 2, *SPEC.shape[1:], dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(adaptor(planes).sum(), planes)
    (expected,) = torch.autograd.grad(adaptor.plain(planes).sum(), planes)
    torch.testing.assert_close(found, expected)


def test_mixers_with_a_norm_are_computed_plainly() -> None:
    adaptor = trained(SPEC, SideOptions(mixer_norm=True), torch.float32).train()
    planes = stored("int8")
    assert torch.equal(adaptor(planes), adaptor.plain(planes.decoded()))


@pytest.mark.parametrize("order", ORDERS)
def test_dropout_of_the_same_units_gives_the_plain_modules_gradients(
    order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    adaptor = trained(SPEC, SideOptions(rank=3, dropout=0.4, order=order)).train()
    drawn: list[tuple[Tensor, Tensor]] = []

    def noted(form: fused.Form, h: Tensor, g: Tensor) -> fused.Kept:
        share = 1.0 - form.dropout
        drawn.append((torch.rand_like(h) < share, torch.rand_like(g) < share))
        return drawn[0]

    monkeypatch.setattr(fused, "kept_units", noted)
    planes = torch.randn(4, 5, *SPEC.shape[1:], dtype=torch.float64)
    found = adaptor(planes)
    pairs = zip(*(kept.view(4, 3, *kept.shape[1:]).unbind() for kept in drawn[0]), strict=True)
    each = [(h.permute(1, 2, 0), g.transpose(0, 1)) for h, g in pairs]
    turns = iter([kept for pair in each for kept in pair[:: 1 if order == ORDERS[0] else -1]])

    def dropout(hidden: Tensor, share: float, training: bool) -> Tensor:
        assert training
        kept: Tensor = hidden * next(turns) / (1 - share)
        return kept

    monkeypatch.setattr("losa.adapt.mixer.F.dropout", dropout)
    expected = adaptor.plain(planes)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(adaptor, found), gradients(adaptor, expected))


def test_dropout_keeps_its_share_of_the_units_and_draws_none_in_evaluation() -> None:
    adaptor = trained(SPEC, SideOptions(rank=4, dropout=0.25), torch.float32)
    hidden = torch.zeros(16, 64, 17)
    form = fused.Form(True, "refine", adaptor.pooling, 0.25)
    for kept in fused.kept_units(form, hidden, hidden):
        assert kept is not None
        assert abs(float(kept.float().mean()) - 0.75) < 0.02
    planes = stored("float16")
    assert torch.equal(adaptor.eval()(planes), adaptor(planes))
    assert not torch.equal(adaptor.train()(planes), adaptor(planes))


def test_under_autocast_the_logits_are_as_near_as_the_plain_modules() -> None:
    adaptor = trained(SPEC, SideOptions(rank=4), torch.float32)
    planes = stored("float16")
    exact = adaptor.plain(planes.decoded())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = adaptor(planes), adaptor.plain(planes.decoded())
    assert ours.dtype == torch.bfloat16
    assert relative(ours.float(), exact) < max(0.02, 2 * relative(theirs.float(), exact))
    gradient = gradients(adaptor, ours.float())
    assert all(bool(value.isfinite().all()) for value in gradient.values())


def test_a_step_repeats_to_the_bit() -> None:
    adaptor = trained(SPEC, SideOptions(rank=4), torch.float32)
    first, second = (gradients(adaptor, adaptor(stored("int8"))) for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_weights_that_do_not_learn_get_no_gradient() -> None:
    adaptor = trained(SPEC, SideOptions(rank=4), torch.float32)
    adaptor.mixers[0].requires_grad_(False)
    found = gradients(adaptor, adaptor(stored("float16")))
    assert not any(name.startswith("mixers.0.") for name in found)
    assert any(name.startswith("mixers.1.") for name in found)
