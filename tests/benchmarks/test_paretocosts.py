"""Claims of benchmarks.paretocosts."""

from __future__ import annotations

import argparse
import subprocess
import sys
from typing import Any

import pytest
import torch

from benchmarks.paretocosts import LIVE, Costs, LiveNet, measured
from losa.adapt.adaptor import LoSA
from losa.config import ExtractConfig
from losa.extract.backbones import BackboneRequest, build_backbone
from losa.extract.run import extract
from losa.extract.vit import ViTBackbone
from tests.extract.picture_folder import picture_folder

TINY: dict[str, Any] = {"model": "vit_tiny_patch16_224", "weights": "random", "img_size": 32}
CLASSES, WIDTH, TOKENS, TAPS = 3, 192, 5, 4


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> argparse.Namespace:
    """Pictures, their store, and the flags of a measurement."""
    root = tmp_path_factory.mktemp("costs")
    pictures = picture_folder(root / "pictures", {"train": 4, "val": 2, "test": 2})
    store = root / "s.zarr"
    extract(ExtractConfig(**TINY, dataset=f"folder:{pictures}", taps="every:3", store=store,
                          device="cpu", num_workers=0))  # fmt: skip
    return argparse.Namespace(
        **TINY, folder=pictures, store=store, scratch=root / "scratch", taps="every:3",
        device="cpu", amp_dtype="none", batch_size=4, num_workers=0, cost_images=8,
    )  # fmt: skip


def costs(method: str, options: argparse.Namespace) -> Costs:
    return measured(method, options.folder, options)


def test_live_and_cached_losa_learn_as_much_and_infer_as_dear(options: argparse.Namespace) -> None:
    live, cached = costs(LIVE, options), costs("losa", options)
    pooled = WIDTH
    head = 2 * pooled + CLASSES * pooled + CLASSES
    assert live.trainable == cached.trainable == TAPS * 2 * 32 * (WIDTH + TOKENS) + head
    assert live.inference_flops == cached.inference_flops
    assert cached.memory_bytes > 0
    assert min(live.images_per_second, cached.images_per_second) > 0


def test_inference_is_the_backbones_and_a_little_more(options: argparse.Namespace) -> None:
    tuned, cached = costs("bitfit", options), costs("linear", options)
    # Twelve blocks of 5 tokens: projections and MLP are 12 d^2 weights, attention 2 l d; and the
    # embedding of 4 patches of 16 x 16 x 3.
    block = TOKENS * (2 * 12 * WIDTH**2 + 4 * TOKENS * WIDTH)
    embedding = 2 * 4 * 768 * WIDTH
    head = 2 * 2 * WIDTH * CLASSES
    assert tuned.inference_flops == cached.inference_flops == 12 * block + embedding + head


def test_the_backbone_of_a_live_network_does_not_train() -> None:
    request = BackboneRequest("vit_tiny_patch16_224", "random", 32, taps="last", dtype="float32")
    backbone = build_backbone(request, device=torch.device("cpu"), amp_dtype=None)
    assert isinstance(backbone, ViTBackbone)
    network = LiveNet(backbone, LoSA(backbone.spec, rank=2, num_classes=3))
    network(torch.zeros(2, 32, 32, 3, dtype=torch.uint8)).sum().backward()
    assert {name.partition(".")[0] for name, _ in network.named_parameters()} == {"side"}
    assert all(value.grad is None for value in backbone.model.parameters())


HOLD = """
import torch
from benchmarks.paretocosts import Peak

held = torch.ones(2**22)
with Peak(torch.device("cpu")) as peak:
    more = torch.ones(2**24)
print(peak.bytes / more.nbytes)
"""


def test_a_peak_is_what_was_held_within() -> None:
    # A process of its own, as the benchmark has: here children of other tests come and go.
    done = subprocess.run([sys.executable, "-c", HOLD], capture_output=True, text=True, check=True)
    assert 0.9 < float(done.stdout) < 1.5
