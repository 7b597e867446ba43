from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from losa.adapt.adaptor import Adaptor, LoSA
from losa.adapt.checkpoint import load_adaptor
from losa.adapt.options import SideOptions
from losa.adapt.progress import ProgressEvent
from losa.adapt.registry import ADAPTORS, UNUSED_OPTIONS, build_adaptor, trainable_parameters
from losa.adapt.train import ONE_TAP, adapt_on
from losa.config import AdaptConfig
from losa.errors import UsageError
from losa.features import FeatureSpec, TokenGrid
from tests.adapt.memory_store import separable_store

SPEC = FeatureSpec("tiny", (1, 3), TokenGrid(2, 2, prefix=1), 8)


@pytest.mark.parametrize("name", ADAPTORS)
def test_every_adaptor_maps_planes_to_logits_that_start_even(name: str) -> None:
    adaptor = build_adaptor(name, SPEC, 3, SideOptions())
    assert adaptor.spec == SPEC
    assert torch.equal(adaptor(torch.randn(2, 4, 5, 8)), torch.zeros(4, 3))


@pytest.mark.parametrize("name", ADAPTORS)
def test_every_adaptor_standardises_by_loaded_statistics(name: str) -> None:
    adaptor = build_adaptor(name, SPEC, 3, SideOptions())
    nn.init.normal_(adaptor.get_parameter("head.linear.weight"))
    planes = torch.randn(2, 4, 5, 8)
    raw = adaptor(planes)
    adaptor.standardise.load(torch.randn(2, 8), torch.rand(2, 8) + 0.5)
    assert not torch.allclose(adaptor(planes), raw)


def test_options_reach_the_adaptor() -> None:
    adaptor = build_adaptor("losa", SPEC, 3, SideOptions(rank=2, residual="sum"))
    assert isinstance(adaptor, LoSA)
    assert adaptor.options == SideOptions(rank=2, residual="sum")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        UsageError, match=r"--adaptor: 'lora' is unknown; .*losa, linear, linear-all"
    ):
        build_adaptor("lora", SPEC, 3, SideOptions())


def test_trainable_parameters_leave_out_frozen_weights_and_statistics() -> None:
    adaptor = build_adaptor("linear", SPEC, 3, SideOptions())
    e = 2 * 8
    assert trainable_parameters(adaptor) == 2 * e + 3 * e + 3
    adaptor.get_parameter("head.norm.weight").requires_grad = False
    assert trainable_parameters(adaptor) == e + 3 * e + 3


@pytest.mark.parametrize("name", ADAPTORS)
def test_an_option_changes_an_adaptor_exactly_where_it_is_not_named_as_unused(name: str) -> None:
    changes: dict[str, Any] = {
        "rank": 3, "token_rank": 2, "order": "token-channel", "residual": "sum",
        "start": "first", "share_mixers": True, "mixer_norm": True, "pool": "cls", "dropout": 0.5,
        "width": 6,
    }  # fmt: skip
    planes = torch.randn(2, 4, 5, 8)
    before = trained_logits(name, SideOptions(), planes)
    for option, value in changes.items():
        after = trained_logits(name, replace(SideOptions(), **{option: value}), planes)
        assert torch.equal(after, before) is (option in UNUSED_OPTIONS[name]), option
    # The start alone, which the weights above have left: tests/adapt/test_adaptor.py.
    assert {*changes, "init_scale", *OF_CLIPS} == {field.name for field in fields(SideOptions)}


@pytest.mark.parametrize("name", ADAPTORS)
def test_an_option_of_clips_changes_what_is_made_of_them_where_it_is_not_unused(name: str) -> None:
    grid = TokenGrid(2, 2, time=3, prefix=3, is_prefix_per_step=True)
    spec = FeatureSpec("tiny", (1, 3), grid, 8)
    before = _state(build_adaptor(name, spec, 3, SideOptions()))
    for option, value in OF_CLIPS.items():
        options = replace(SideOptions(clip_frames=2), **{option: value})
        after = _state(build_adaptor(name, spec, 3, options))
        if option in UNUSED_OPTIONS[name]:
            options = SideOptions(clip_frames=2)
            assert after == _state(build_adaptor(name, spec, 3, options)), option
        else:
            assert after != before, option


OF_CLIPS: dict[str, Any] = {
    "token_mixing": "space", "token_order": "time-space", "time_rank": 3,
    "clip_frames": 2, "clip_stride": 2,
}  # fmt: skip


def _state(adaptor: Adaptor) -> list[object]:
    """Shapes of the weights, the order of the axes, and the steps that are seen."""
    orders = [module.token_order for module in adaptor.modules() if hasattr(module, "token_order")]
    shapes = [(key, tuple(weight.shape)) for key, weight in adaptor.named_parameters()]
    return [shapes, orders, adaptor.window and adaptor.window.middle]


def trained_logits(name: str, options: SideOptions, planes: torch.Tensor) -> torch.Tensor:
    """Logits of a seeded adaptor whose weights are all away from zero, while it trains."""
    torch.manual_seed(0)
    adaptor = build_adaptor(name, SPEC, 3, options)
    torch.manual_seed(1)
    for weight in adaptor.parameters():
        nn.init.normal_(weight)
    torch.manual_seed(2)
    logits: torch.Tensor = adaptor.train()(planes)
    return logits


@pytest.mark.parametrize("name", ADAPTORS)
def test_every_adaptor_gives_the_same_logits_for_cached_and_live_planes(name: str) -> None:
    adaptor = build_adaptor(name, SPEC, 3, SideOptions())
    nn.init.normal_(adaptor.get_parameter("head.linear.weight"))
    planes = torch.randn(2, 4, 5, 8)
    assert torch.equal(adaptor(planes), adaptor(list(planes)))
    assert torch.equal(adaptor(planes), adaptor(iter(planes)))


@pytest.mark.parametrize("name", ADAPTORS)
def test_an_adaptor_whose_other_taps_are_not_read_does_not_see_them(name: str) -> None:
    adaptor = build_adaptor(name, SPEC, 3, SideOptions())
    for weight in adaptor.parameters():
        nn.init.normal_(weight)
    planes = torch.randn(2, 4, 5, 8)
    changed = planes.clone()
    changed[0] = torch.randn(4, 5, 8)
    assert torch.equal(adaptor(changed), adaptor(planes)) is (name in ONE_TAP)


@pytest.mark.parametrize("amp", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("name", ADAPTORS)
def test_every_adaptor_learns_in_half_precision(
    name: str, dtype: torch.dtype, amp: torch.dtype
) -> None:
    torch.manual_seed(0)
    adaptor = build_adaptor(name, SPEC, 3, SideOptions())
    nn.init.normal_(adaptor.get_parameter("head.linear.weight"))
    planes = torch.randn(2, 4, 5, 8).to(dtype)
    with torch.autocast("cpu", dtype=amp):
        half = adaptor(planes)
        half.float().square().sum().backward()
    torch.testing.assert_close(half.float(), adaptor(planes), atol=0.1, rtol=0.05)
    for weight in adaptor.parameters():
        assert weight.grad is not None
        assert weight.grad.dtype == torch.float32
        assert bool(weight.grad.isfinite().all())


@pytest.mark.parametrize("name", ADAPTORS)
def test_every_adaptor_learns_is_resumed_to_the_bit_and_comes_back_from_its_files(
    name: str, tmp_path: Path
) -> None:
    store = separable_store()
    config = AdaptConfig(
        adaptor=name, device="cpu", rank=2, epochs=6, batch_size=16, lr=0.02, dropout=0.1,
        checkpoint_seconds=1e9,
    )  # fmt: skip

    def stop(event: ProgressEvent) -> None:
        if (event.phase, event.epoch, event.step) == ("train", 2, 3):
            raise KeyboardInterrupt

    whole = adapt_on(store, config.model_copy(update={"out": tmp_path / "whole"}))
    assert whole.metrics["test"]["top1"] > 0.9
    read = {tap for taps in store.split("train").reads for tap in taps}
    assert read == ({3} if name in ONE_TAP else {1, 3})
    halved = config.model_copy(update={"out": tmp_path / "halved"})
    with pytest.raises(KeyboardInterrupt):
        adapt_on(store, halved, progress=stop)
    assert adapt_on(store, halved).metrics == whole.metrics
    (left, card), (right, _) = (load_adaptor(tmp_path / run) for run in ("whole", "halved"))
    assert (card.adaptor, card.options.dropout) == (name, 0.1 * ("linear" not in name))
    others = right.state_dict()
    assert all(torch.equal(value, others[key]) for key, value in left.state_dict().items())
