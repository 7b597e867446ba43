"""Space and time mixed in one stream against the module that the equations are held against."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from losa.adapt import folding, streamed
from losa.adapt.adaptor import LoSA
from losa.adapt.folding import FoldedPlanes, Residual
from losa.adapt.mixer import Order, TokenOrder
from losa.adapt.options import SideOptions, TokenAxes
from losa.adapt.streamed import Axis
from losa.features import STORE_DTYPES, FeatureSpec, StoreDtype, TokenGrid
from tests.adapt.test_fused import gradients, relative, stored, trained

PER_STEP = TokenGrid(5, 9, time=4, prefix=8, is_prefix_per_step=True)
GRIDS = (
    TokenGrid(2, 2, time=3),
    TokenGrid(2, 2, time=3, prefix=2),
    TokenGrid(2, 2, time=3, prefix=6, is_prefix_per_step=True),
    # Products large enough for the kernels of large ones, on views that are not contiguous.
    TokenGrid(5, 9, time=4, prefix=3),
    PER_STEP,
)
RESIDUALS = get_args(Residual)
KINDS: tuple[TokenAxes, ...] = ("factorised", "space", "time")
D = 13


def assert_plain(adaptor: LoSA, planes: Tensor) -> None:
    """Logits and gradients are those of the plain module, in float64."""
    results = []
    for forward in (adaptor, adaptor.plain):
        logits = forward(planes)
        results.append((logits.detach(), gradients(adaptor, logits)))
    assert results[0][1].keys() == results[1][1].keys()
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-6)


def network(
    grid: TokenGrid, taps: int = 3, dtype: torch.dtype = torch.float64, **options: Any
) -> LoSA:
    spec = FeatureSpec("clips", tuple(range(taps)), grid, D)
    chosen = SideOptions(rank=3, token_rank=options.pop("token_rank", 2), **options)
    return trained(spec, chosen, dtype)


@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize("grid", GRIDS)
def test_a_stream_gives_the_plain_modules_logits_and_gradients(
    grid: TokenGrid, residual: Residual
) -> None:
    pool = "cls+mean" if grid.prefix else "mean"
    adaptor = network(grid, residual=residual, time_rank=2, pool=pool)
    # Not contiguous, as a plane of somebody's may be.
    planes = torch.randn(3, grid.num_tokens, 2, D, dtype=torch.float64).transpose(1, 2)
    assert_plain(adaptor, planes)


@pytest.mark.parametrize("order", get_args(Order))
@pytest.mark.parametrize("token_order", get_args(TokenOrder))
@pytest.mark.parametrize("start", ["auto", "first"])
def test_every_order_and_start_is_that_of_the_plain_module(
    order: Order, token_order: TokenOrder, start: str
) -> None:
    for residual in RESIDUALS[:2]:
        options: dict[str, Any] = {"order": order, "token_order": token_order, "start": start}
        adaptor = network(GRIDS[2], residual=residual, **options)
        planes = torch.randn(3, 2, GRIDS[2].num_tokens, D, dtype=torch.float64)
        assert_plain(adaptor, planes)


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("grid", GRIDS[1:3])
def test_one_axis_alone_is_that_of_the_plain_module(grid: TokenGrid, kind: TokenAxes) -> None:
    token_rank = None if kind == "time" else 2
    adaptor = network(grid, token_mixing=kind, token_rank=token_rank)
    assert_plain(adaptor, torch.randn(3, 2, grid.num_tokens, D, dtype=torch.float64))


@pytest.mark.parametrize("taps", [1, 3])
def test_shared_mixers_and_windows_are_those_of_the_plain_module(taps: int) -> None:
    grid = GRIDS[2]
    assert_plain(
        network(grid, taps, share_mixers=True),
        torch.randn(taps, 2, grid.num_tokens, D, dtype=torch.float64),
    )
    adaptor = network(grid, taps, clip_frames=2).eval()
    whole = torch.randn(taps, 2, grid.num_tokens, D, dtype=torch.float64)
    plain = network(grid.with_time(2), taps)
    plain.load_state_dict(adaptor.state_dict())
    assert adaptor.window is not None
    (*seen,) = adaptor.window.taken(whole, is_drawn=False)
    torch.testing.assert_close(adaptor(whole), plain.plain(seen))


@pytest.mark.parametrize("residual", RESIDUALS)
def test_gradients_are_those_of_finite_differences(residual: Residual) -> None:
    adaptor = network(TokenGrid(1, 2, time=2, prefix=1), residual=residual)
    names = [name for name, _ in adaptor.named_parameters()]
    planes = torch.randn(3, 2, 5, D, dtype=torch.float64)

    def logits(*weights: Tensor) -> Tensor:
        found = torch.func.functional_call(adaptor, dict(zip(names, weights, strict=True)), planes)
        assert isinstance(found, Tensor)
        return found

    assert torch.autograd.gradcheck(logits, tuple(adaptor.parameters()), fast_mode=True)


@pytest.mark.parametrize("piece_bytes", [1, 2**21])
@pytest.mark.parametrize("dtype", STORE_DTYPES)
def test_stored_planes_give_in_float32_what_decoded_ones_give_the_plain_module(
    dtype: StoreDtype, piece_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding, "PIECE_BYTES", piece_bytes)
    for grid in GRIDS[1:3]:
        adaptor = network(grid, dtype=torch.float32)
        planes = stored(dtype, adaptor.spec)
        found, expected = adaptor(planes), adaptor.plain(planes.decoded())
        assert relative(found, expected) < 1e-5
        ours, theirs = gradients(adaptor, found), gradients(adaptor, expected)
        for name, gradient in ours.items():
            assert relative(gradient, theirs[name]) < 5e-5, name


def test_planes_that_learn_dropout_norm_and_autocast_take_the_plain_module(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*_: Any) -> Tensor:
        raise AssertionError("streamed")

    monkeypatch.setattr("losa.adapt.adaptor.streamed", never)
    planes = torch.randn(3, 2, GRIDS[2].num_tokens, D)
    learning = planes.clone().requires_grad_()
    network(GRIDS[2], dtype=torch.float32)(learning).sum().backward()
    assert learning.grad is not None
    for options in ({"dropout": 0.5}, {"mixer_norm": True}):
        network(GRIDS[2], dtype=torch.float32, **options).train()(planes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(GRIDS[2], dtype=torch.float32)(planes).isfinite().all()
    with pytest.raises(AssertionError, match="streamed"):
        network(GRIDS[2], dtype=torch.float32, dropout=0.5).eval()(planes)


def test_planes_that_changed_before_the_backward_are_noticed() -> None:
    adaptor = network(GRIDS[0], dtype=torch.float32)
    planes = torch.randn(3, 2, GRIDS[0].num_tokens, D)
    loss = adaptor(planes).sum()
    planes.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.backward(loss)


def test_a_step_repeats_to_the_bit_and_a_second_backward_too() -> None:
    adaptor = network(PER_STEP, dtype=torch.float32)
    planes = stored("int8", adaptor.spec)
    first, second = (gradients(adaptor, adaptor(planes)) for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    loss, weight = adaptor(planes).square().sum(), adaptor.get_parameter("mixers.0.space.down")
    again = [torch.autograd.grad(loss, weight, retain_graph=True)[0] for _ in range(2)]
    assert torch.equal(*again)


def test_a_backward_keeps_the_hidden_units_and_one_plane() -> None:
    adaptor = network(PER_STEP, dtype=torch.float32)
    planes = stored("float16", adaptor.spec, batch=8)
    known = {value.data_ptr() for value in (*planes.values, *adaptor.parameters())}
    kept: list[int] = []

    def keep(value: Tensor) -> Tensor:
        if value.data_ptr() not in known and value.dtype == torch.float32 and value.ndim > 1:
            kept.append(value.nbytes)
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        adaptor(planes)
    steps, places = PER_STEP.time, PER_STEP.positions + PER_STEP.step_prefix
    units = 3 * (steps * places * 3 + steps * 2 * D + 3 * places * D)
    plane = steps * places * D
    assert 4 * 8 * (units + plane) <= sum(kept) <= 1.1 * 4 * 8 * (units + plane)


@pytest.mark.parametrize("is_up", [True, False])
@pytest.mark.parametrize("grid", GRIDS)
def test_reading_and_writing_are_adjoint(grid: TokenGrid, is_up: bool) -> None:
    torch.manual_seed(1)
    x = torch.randn(1, 2, grid.num_tokens, D, dtype=torch.float64)
    one, none = torch.ones(1, D, dtype=torch.float64), torch.zeros(1, D, dtype=torch.float64)
    bases = streamed._Bases(FoldedPlanes((x[0],), one, none, x.dtype), grid, slice(0, 2))
    stream = bases.of(0)
    widths: dict[Axis, int] = {
        "channel": D,
        "space": grid.step_prefix + grid.positions,
        "time": grid.time,
    }
    for axis, width in widths.items():
        weight = torch.randn(3, width, dtype=torch.float64)
        read = stream.read(axis, weight, is_up=is_up)
        hidden = torch.randn_like(read)
        written = stream.scaled(0.0)
        written.write(axis, weight, hidden, is_up=is_up)
        expected = (read * hidden).sum()
        products = [
            (mine * its).sum() for mine, its in zip(written.parts, stream.parts, strict=True)
        ]
        torch.testing.assert_close(torch.stack(products).sum(), expected)
        # <W x, hidden> is linear in W too, and its gradient is the pairs.
        pairs = stream.pairs(axis, hidden, is_up=is_up)
        torch.testing.assert_close((pairs * weight).sum(), expected)
