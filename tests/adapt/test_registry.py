from __future__ import annotations

import pytest
import torch
from torch import nn

from losa.adapt.adaptor import LoSA, SideOptions
from losa.adapt.registry import ADAPTORS, build_adaptor, trainable_parameters
from losa.errors import UsageError
from losa.features import FeatureSpec, TokenGrid

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
