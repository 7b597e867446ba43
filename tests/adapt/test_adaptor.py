from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import nn

from losa.adapt.adaptor import LoSA
from losa.adapt.baselines import Linear
from losa.adapt.folding import Residual
from losa.adapt.mixer import Mixer, Order
from losa.adapt.options import SideOptions, Start
from losa.errors import MismatchError, UsageError
from losa.features import FeatureSpec, TokenGrid
from losa.precision import EncodedPlanes
from tests.oracles import side_network as oracle

SPEC = FeatureSpec("tiny", (1, 3, 5), TokenGrid(2, 3, prefix=1), 12)
K, L, D = SPEC.shape


def planes(batch: int = 4) -> torch.Tensor:
    return torch.randn(K, batch, L, D, generator=torch.Generator().manual_seed(9))


def trained(adaptor: LoSA) -> LoSA:
    """Give every weight and statistic a value, as training and a store would."""
    torch.manual_seed(3)
    for weight in adaptor.parameters():
        nn.init.normal_(weight, std=0.4)
    adaptor.standardise.load(torch.randn(K, D), torch.rand(K, D) + 0.5)
    return adaptor.eval()


def by_oracle(adaptor: LoSA, stacked: torch.Tensor) -> np.ndarray:
    state = {name: value.double().numpy() for name, value in adaptor.state_dict().items()}
    mixers = [
        (
            state[f"mixers.{i}.channel.down"],
            state[f"mixers.{i}.channel.up"],
            state[f"mixers.{i}.token.down"],
            state[f"mixers.{i}.token.up"],
        )
        for i in ([0] * K if adaptor.options.share_mixers else range(K))
    ]
    head = tuple(state[f"head.{name}"] for name in ("norm.weight", "norm.bias"))
    linear = tuple(state[f"head.linear.{name}"] for name in ("weight", "bias"))
    options = adaptor.options
    b = oracle.standardise(
        stacked.double().numpy(), state["standardise.mean"], state["standardise.std"]
    )
    seen = oracle.side_network(
        b, mixers, options.residual, options.order, options.mixer_norm, options.start
    )
    pooled = oracle.pool(seen, adaptor.pool.name, SPEC.grid.prefix)
    return oracle.head(pooled, (head[0], head[1], linear[0], linear[1]))


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("order", get_args(Order))
@pytest.mark.parametrize("residual", get_args(Residual))
def test_logits_agree_with_the_equations(residual: Residual, order: Order, norm: bool) -> None:
    options = SideOptions(order=order, residual=residual, mixer_norm=norm, token_rank=3)
    adaptor = trained(LoSA(SPEC, 4, 5, options=options))
    expected = by_oracle(adaptor, planes())
    assert np.abs(expected).max() > 0.1
    scale = max(1.0, float(np.abs(expected).max()))
    with torch.no_grad():
        found = adaptor(planes()).double().numpy()
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-5)


@pytest.mark.parametrize("start", get_args(Start))
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("residual", get_args(Residual))
def test_logits_agree_with_the_equations_from_either_start(
    residual: Residual, share: bool, start: Start
) -> None:
    options = SideOptions(residual=residual, share_mixers=share, start=start)
    adaptor = trained(LoSA(SPEC, 4, 5, options=options))
    expected = by_oracle(adaptor, planes())
    scale = max(1.0, float(np.abs(expected).max()))
    for forward in (adaptor, adaptor.plain):
        with torch.no_grad():
            found = forward(planes()).double().numpy()
        np.testing.assert_allclose(found / scale, expected / scale, atol=1e-5)


def test_a_shared_mixer_has_the_parameters_of_one_and_the_gradients_of_all_taps() -> None:
    adaptor = trained(LoSA(SPEC, options=SideOptions(rank=4, share_mixers=True)))
    apart = LoSA(SPEC, options=SideOptions(rank=4))
    apart.load_state_dict(
        {
            name: adaptor.state_dict()[name if "mixers" not in name else f"mixers.0{name[8:]}"]
            for name in apart.state_dict()
        }
    )
    for network in (adaptor, apart):
        torch.autograd.backward(network(planes()).square().sum())
    (shared,) = adaptor.mixers
    for name, weight in shared.named_parameters():
        single = [mixer.get_parameter(name).grad for mixer in apart.mixers]
        expected = torch.stack([grad for grad in single if grad is not None]).sum(0)
        torch.testing.assert_close(weight.grad, expected, rtol=1e-4, atol=1e-4)
    assert sum(weight.numel() for weight in shared.parameters()) == 2 * D * 4 + 2 * L * 4


def test_the_scale_of_the_start_is_that_of_all_down_projections() -> None:
    states = []
    for scale in (1.0, 0.25):
        torch.manual_seed(4)
        states.append(LoSA(SPEC, options=SideOptions(init_scale=scale)).state_dict())
    for name, value in states[0].items():
        factor = 0.25 if name.endswith(".down") else 1.0
        assert torch.equal(states[1][name], value * factor), name


@pytest.mark.parametrize("options", [{"share_mixers": True}, {"start": "first"}])
def test_a_network_whose_products_cannot_be_taken_elsewhere_says_so(
    options: dict[str, Any],
) -> None:
    encoded = EncodedPlanes(planes(), "float32", (0,) * K)
    with pytest.raises(UsageError, match="is not trained among other trials"):
        LoSA(SPEC, options=replace(SideOptions(), **options)).folded(encoded)
    LoSA(SPEC, options=SideOptions(residual="stream", start="first")).folded(encoded)


def test_a_new_network_is_a_linear_probe_of_the_last_tap() -> None:
    adaptor = LoSA(SPEC, num_classes=5)
    probe = Linear(SPEC, num_classes=5, options=SideOptions(pool="mean"))
    for module in (adaptor, probe):
        torch.manual_seed(3)
        module.standardise.load(torch.randn(K, D), torch.rand(K, D) + 0.5)
        for weight in module.head.parameters():
            nn.init.normal_(weight)
    assert torch.equal(adaptor.plain(planes()), probe(planes()))
    torch.testing.assert_close(adaptor(planes()), probe(planes()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("residual", get_args(Residual))
def test_a_stack_a_list_and_a_stream_of_planes_give_identical_logits(residual: Residual) -> None:
    adaptor = trained(LoSA(SPEC, options=SideOptions(residual=residual)))

    def stream() -> Iterator[torch.Tensor]:
        for plane in planes():
            yield plane.clone()

    logits = adaptor(planes())
    assert torch.equal(adaptor(list(planes())), logits)
    assert torch.equal(adaptor(stream()), logits)


def test_the_parameters_are_the_mixers_and_the_head() -> None:
    adaptor = LoSA(SPEC, rank=8, num_classes=10)
    mixers = K * (2 * D * 8 + 2 * L * 8)
    head = 2 * D + 10 * D + 10
    assert sum(weight.numel() for weight in adaptor.parameters()) == mixers + head


def test_every_weight_learns_once_the_head_is_not_zero() -> None:
    adaptor = trained(LoSA(SPEC))
    torch.autograd.backward(adaptor(planes()).square().sum())
    assert all(w.grad is not None and bool(w.grad.any()) for w in adaptor.parameters())


def test_a_new_network_learns_within_two_steps_in_every_mixer() -> None:
    torch.manual_seed(0)
    adaptor = LoSA(SPEC, num_classes=3)
    optimiser = torch.optim.SGD(adaptor.parameters(), lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(adaptor(planes(3)), torch.arange(3)))
        optimiser.step()
    for mixer in adaptor.mixers:
        assert isinstance(mixer, Mixer)
        assert mixer.channel.up.any()
        assert mixer.token.up.any()


def test_the_rank_argument_wins_over_the_options_and_the_options_own_the_default() -> None:
    assert LoSA(SPEC).options.ranks == (SideOptions().rank, SideOptions().rank)
    assert LoSA(SPEC, 2, options=SideOptions(rank=5, token_rank=3)).options.ranks == (2, 3)
    assert LoSA(SPEC, options=SideOptions(rank=5)).options.ranks == (5, 5)


def test_planes_of_another_spec_are_refused() -> None:
    with pytest.raises(MismatchError, match="2 given for 3 taps"):
        LoSA(SPEC)(planes()[:2])
    with pytest.raises(MismatchError, match="plane of tap 1"):
        LoSA(SPEC)(planes()[..., :-1])


@pytest.mark.parametrize(
    ("flag", "options"),
    [
        ("--rank", {"rank": 0}),
        ("--token-rank", {"token_rank": 0}),
        ("--dropout", {"dropout": 1.0}),
        ("--order", {"order": "sideways"}),
        ("--residual", {"residual": "none"}),
        ("--start", {"start": "last"}),
        ("--init-scale", {"init_scale": 0.0}),
        ("--pool", {"pool": "max"}),
    ],
)
def test_options_that_cannot_be_meant_are_refused(flag: str, options: dict[str, object]) -> None:
    # Past the static and runtime type checks, as a damaged file would come.
    unchecked = object.__new__(SideOptions)
    for name in SideOptions.__slots__:
        object.__setattr__(unchecked, name, options.get(name, getattr(SideOptions(), name)))
    with pytest.raises(UsageError, match=f"{flag}: "):
        unchecked.__post_init__()


def test_bfloat16_autocast_stays_near_full_precision() -> None:
    adaptor = trained(LoSA(SPEC))
    expected = adaptor(planes())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = adaptor(planes())
    assert (found.float() - expected).abs().max() < 0.05 * expected.abs().max()
