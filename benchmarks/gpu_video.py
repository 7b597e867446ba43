"""What does a video backbone of four billion parameters cost on a GPU, frozen?

Question: how much of a device's memory, and how many clips a second, do the frozen forward of
ViViT-e and a training step of LoSA on its features take; and how much does tuning a much smaller
video backbone as a whole take?
Method: random weights and pixels, bfloat16 autocast, clips of one length. ``extract`` is the frozen
forward with the token policy to planes at the taps; ``adapt`` a step of AdamW on the side network
with these planes on the device; ``fine-tune`` a step of AdamW on every weight of the rival and a
linear head on its class token. Each is warmed up, then timed in rounds, alone on the device: the
others' weights are not there. Memory is the most that torch's allocator held. On a CPU, for which
this is made to run but not to measure, no memory is told.
Ratio against: the whole rival (clips a second, bytes). Without the device that was asked for one
line says so, and nothing is written.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody reads
from torch import Tensor, nn

from benchmarks.record import note, publish
from losa.adapt.adaptor import LoSA
from losa.device import Compute, resolve_compute
from losa.errors import ResourceError
from losa.extract.backbones import BackboneRequest, build_backbone
from losa.extract.video.backbone import ViViTBackbone

EXTRACT: Final = "extract"
ADAPT: Final = "adapt"
TUNE: Final = "fine-tune"
STEPS: Final = 3
"""Steps of a round."""


def main(argv: list[str]) -> int:
    """Measure, print a table, and publish ``results/gpu_video.json``; or say why not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu_video")
    parser.add_argument("--model", default="vivit_e", help="the frozen video backbone")
    parser.add_argument("--rival", default="vivit_l", help="the one that is tuned as a whole")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--img-size", type=int, default=224)
    parser.add_argument("--taps", default="auto")
    parser.add_argument("--tokens", default="pool:1x2x2")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--classes", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args(argv)
    try:
        compute = resolve_compute(options.device, "auto")
    except ResourceError as error:
        note(f"gpu_video: not measured: {error}")
        return 0
    found = measured(options, compute)
    publish("gpu_video", argv, facts(compute) | found)
    return 0


def facts(compute: Compute) -> dict[str, Any]:
    """What was measured on."""
    if compute.device.type != "cuda":
        return {"device": "cpu"}
    return {"device": torch.cuda.get_device_name(compute.device), "cuda": torch.version.cuda}


def measured(options: argparse.Namespace, compute: Compute) -> dict[str, Any]:
    """Clips a second and bytes of the frozen way and of tuning the rival."""
    rows: dict[str, dict[str, Any]] = {}
    frozen = backbone_of(options.model, options, compute)
    pixels = pixels_of(frozen, options.batch_size)
    rows[EXTRACT] = timed(EXTRACT, lambda: frozen(pixels), options, compute)
    planes, spec = [plane.half() for plane in frozen(pixels)], frozen.spec
    sizes = {"parameters": count(frozen.model), "rival_parameters": 0}
    del frozen, pixels
    side = LoSA(spec, options.rank, options.classes).to(compute.device)
    step = step_of(side, lambda: side(planes), options, compute)
    rows[ADAPT] = timed(ADAPT, step, options, compute)
    sizes |= {"side_parameters": count(side), "sample_bytes": spec.sample_bytes}
    del side, planes, step
    rival = Whole(backbone_of(options.rival, options, compute), options.classes)
    seen = rival.normalised(options.batch_size)
    tune = step_of(rival, lambda: rival(seen), options, compute)
    rows[TUNE] = timed(TUNE, tune, options, compute)
    sizes["rival_parameters"] = count(rival)
    return {"rows": rows, **sizes, "adapt_to_fine_tune": compared(rows[ADAPT], rows[TUNE])}


def backbone_of(model: str, options: argparse.Namespace, compute: Compute) -> ViViTBackbone:
    """A video backbone with random weights on the device."""
    request = BackboneRequest(
        model=model,
        weights="random",
        img_size=options.img_size,
        taps=options.taps,
        tokens=options.tokens,
        frames=options.frames,
    )
    found = build_backbone(request, device=compute.device, amp_dtype=compute.amp)
    assert isinstance(found, ViViTBackbone)
    return found


def pixels_of(backbone: ViViTBackbone, batch: int) -> Tensor:
    """Random clips on the device."""
    shape = (batch, *backbone.preprocessing.shape)
    return torch.randint(0, 256, shape, dtype=torch.uint8).to(backbone.device)


class Whole(nn.Module):
    """A video backbone all of whose weights learn, and a linear head on its class token."""

    def __init__(self, backbone: ViViTBackbone, classes: int) -> None:
        super().__init__()
        self.network = backbone.model.requires_grad_(requires_grad=True).train()
        self.head = nn.Linear(backbone.spec.channels, classes).to(backbone.device)
        self._backbone = backbone

    def normalised(self, batch: int) -> Tensor:
        """Random clips as the network takes them."""
        return self._backbone.normalise(pixels_of(self._backbone, batch))

    def forward(self, clips: Tensor) -> Tensor:
        """Logits of clips."""
        last = self._backbone.depth - 1
        (plane,) = self.network(clips, (last,), self._backbone.looked_at)
        logits: Tensor = self.head(self.network.norm(plane)[:, 0])
        return logits


def step_of(
    network: nn.Module,
    logits: Callable[[], Tensor],
    options: argparse.Namespace,
    compute: Compute,
) -> Callable[[], object]:
    """A training step: forward under autocast, backward, AdamW."""
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-4)
    labels = torch.randint(options.classes, (options.batch_size,)).to(compute.device)

    def step() -> object:
        with compute.autocast():
            loss = F.cross_entropy(logits().float(), labels)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward([loss])
        optimiser.step()
        return loss.detach()

    return step


def timed(
    name: str, run: Callable[[], object], options: argparse.Namespace, compute: Compute
) -> dict[str, Any]:
    """Clips a second, best and median of the rounds, and the most bytes the device held."""
    on_cuda = compute.device.type == "cuda"
    if on_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(compute.device)
    run()
    rates = []
    for _ in range(options.rounds):
        _wait(compute)
        started = time.perf_counter()
        for _ in range(STEPS):
            run()
        _wait(compute)
        rates.append(STEPS * options.batch_size / (time.perf_counter() - started))
    peak = torch.cuda.max_memory_allocated(compute.device) if on_cuda else None
    memory = "" if peak is None else f"  {peak / 1e9:7.2f} GB"
    note(f"{name:10} {max(rates):9.2f} clips/s{memory}")
    return {"best": max(rates), "median": statistics.median(rates), "peak_bytes": peak}


def compared(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float | None]:
    """How many times the rival's clips a second, and which share of its bytes.

    Example:
        >>> compared({"best": 8.0, "peak_bytes": 2}, {"best": 2.0, "peak_bytes": 8})
        {'speed': 4.0, 'memory': 0.25}
    """
    is_told = ours["peak_bytes"] is not None and theirs["peak_bytes"] is not None
    memory = ours["peak_bytes"] / theirs["peak_bytes"] if is_told else None
    return {"speed": ours["best"] / theirs["best"], "memory": memory}


def count(network: nn.Module) -> int:
    """Parameters of a network."""
    return sum(parameter.numel() for parameter in network.parameters())


def _wait(compute: Compute) -> None:
    if compute.device.type == "cuda":
        torch.cuda.synchronize(compute.device)
