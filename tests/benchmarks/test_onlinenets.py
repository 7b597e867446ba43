"""Claims of benchmarks.onlinenets."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from jaxtyping import UInt8
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.onlinenets import LORA_RANK, METHODS, PROMPTS, OnlineNet
from losa.extract.backbones import BackboneRequest, build_backbone
from losa.extract.vit import ViTBackbone

CLASSES, DEPTH, CHANNELS = 3, 12, 192
HEAD = 4 * CHANNELS + (2 * CHANNELS + 1) * CLASSES
"""Gain and bias of the norm of CLS and mean, and the classifier."""


@pytest.fixture(scope="module")
def backbone() -> ViTBackbone:
    request = BackboneRequest("vit_tiny_patch16_224", "random", 32, "last", dtype="float32")
    found = build_backbone(request, device=torch.device("cpu"), amp_dtype=None)
    assert isinstance(found, ViTBackbone)
    return found


@pytest.fixture(scope="module")
def pixels() -> UInt8[Tensor, "b h w 3"]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8, generator=generator)


def network(backbone: ViTBackbone, method: str) -> OnlineNet:
    """A rival whose head is not zero, so that gradients reach the backbone."""
    if method == "lora":
        pytest.importorskip("peft", reason="the extra bench is not installed")
    torch.manual_seed(0)
    net = OnlineNet(backbone, METHODS[method], CLASSES)
    nn.init.normal_(net.head.linear.weight)
    return net.eval()


def trained(net: OnlineNet) -> dict[str, nn.Parameter]:
    return {name: value for name, value in net.trunk.named_parameters() if value.requires_grad}


@pytest.mark.parametrize(
    ("method", "count"),
    [
        ("lora", DEPTH * 2 * 2 * LORA_RANK * CHANNELS),
        ("vpt", DEPTH * PROMPTS * CHANNELS),
        # Of a block two norms, 3 + 1 projections of attention, 4 + 1 of the MLP; patches; a norm.
        ("bitfit", DEPTH * 11 * CHANNELS + 2 * CHANNELS),
    ],
)
def test_a_method_trains_as_many_weights_as_its_paper_counts(
    backbone: ViTBackbone, method: str, count: int
) -> None:
    net = network(backbone, method)
    assert sum(value.numel() for value in trained(net).values()) == count
    every = sum(value.numel() for value in net.parameters() if value.requires_grad)
    assert every == count + HEAD


def test_full_fine_tuning_trains_all_that_the_backbone_has(backbone: ViTBackbone) -> None:
    net = network(backbone, "full")
    assert len(trained(net)) == len(dict(backbone.model.named_parameters()))
    assert not any(value.requires_grad for value in backbone.model.parameters())


def test_lora_changes_queries_and_values_and_not_keys(backbone: ViTBackbone) -> None:
    pattern = re.compile(r"blocks\.\d+\.attn\.qkv\.([qkv])\.lora_[AB]\.default\.weight")
    found = [pattern.fullmatch(name) for name in trained(network(backbone, "lora"))]
    assert {match[1] for match in found if match is not None} == {"q", "v"}
    assert all(found)


@pytest.mark.parametrize("method", ["full", "lora", "bitfit"])
def test_before_the_first_step_a_method_is_the_backbone_with_a_head(
    backbone: ViTBackbone, pixels: UInt8[Tensor, "b h w 3"], method: str
) -> None:
    net = network(backbone, method)
    (plane,) = backbone(pixels)
    model: Any = backbone.model
    last = functional.layer_norm(plane, (CHANNELS,), model.norm.weight, model.norm.bias, 1e-6)
    pooled = torch.cat([last[:, 0], last[:, 1:].mean(1)], dim=1)
    expected = functional.layer_norm(pooled, (2 * CHANNELS,)) @ net.head.linear.weight.T
    torch.testing.assert_close(net(pixels), expected, rtol=1e-4, atol=1e-4)


def test_prompts_are_deep_ones_in_front_of_the_patches_replaced_at_every_block(
    backbone: ViTBackbone, pixels: UInt8[Tensor, "b h w 3"]
) -> None:
    """VPT-deep with explicit tokens: what a block makes of prompts is left behind."""
    net = network(backbone, "vpt")
    model: Any = backbone.model
    trunk: Any = net.trunk
    tokens = model._pos_embed(model.patch_embed(backbone.normalise(pixels)))
    sequence = torch.cat([tokens[:, :1], torch.zeros(2, PROMPTS, CHANNELS), tokens[:, 1:]], dim=1)
    for block, prompted in zip(model.blocks, trunk.blocks, strict=True):
        sequence = sequence.clone()
        sequence[:, 1 : 1 + PROMPTS] = prompted.prompts
        sequence = block(sequence)
    last = model.norm(torch.cat([sequence[:, :1], sequence[:, 1 + PROMPTS :]], dim=1))
    pooled = torch.cat([last[:, 0], last[:, 1:].mean(1)], dim=1)
    expected = functional.layer_norm(pooled, (2 * CHANNELS,)) @ net.head.linear.weight.T
    torch.testing.assert_close(net(pixels), expected, rtol=1e-4, atol=1e-4)


def test_prompts_start_within_the_bound_of_their_paper(backbone: ViTBackbone) -> None:
    bound = math.sqrt(6 / (3 * 16 * 16 + CHANNELS))
    for value in trained(network(backbone, "vpt")).values():
        assert 0.8 * bound < float(value.detach().abs().max()) <= bound


@pytest.mark.parametrize("method", sorted(METHODS))
def test_gradients_reach_everything_that_is_trained(
    backbone: ViTBackbone, pixels: UInt8[Tensor, "b h w 3"], method: str
) -> None:
    net = network(backbone, method)
    net(pixels).square().sum().backward()
    # The deltas start at zero, and what is multiplied by them takes none.
    silent = [n for n, v in trained(net).items() if v.grad is None or not v.grad.any()]
    assert all("lora_A" in name for name in silent)
