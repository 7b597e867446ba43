"""M12: on CUDA, does an extraction cost what its bfloat16 forward costs?

Question: how much of the speed of a bare forward under autocast has a whole extraction on a GPU,
with a ViT-g of random weights?
Method: as ``python -m benchmarks extraction``, whose rounds these are: the bare forward takes the
batches from the device's own memory, and is waited for at its end; the extraction decodes, uploads,
computes, encodes on the device, downloads, writes, syncs, commits and seals.
Ratio against: the bare forward (target >= 0.95 of its speed, a cost <= 1 / 0.95). Without a CUDA
device one line says so, and nothing is written.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks import extraction
from benchmarks.record import note, publish
from benchmarks.rounds import outcome
from benchmarks.stores import scratch

LEAST_SPEED: Final = 0.95


def main(argv: list[str]) -> int:
    """Measure, print a table, and publish ``results/gpu_extract.json``; or say why not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu_extract")
    parser.add_argument("--model", default="vit_g")
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--img-size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", default="auto", help="decode processes")
    parser.add_argument("--compile", action="store_true", help="compile the forward, on both sides")
    parser.add_argument("--dir", type=Path, default=None, help="where images and stores are put")
    options = parser.parse_args(argv)
    if not torch.cuda.is_available():
        note("M12: not measured: torch sees no CUDA device here")
        return 0
    with scratch(options.dir) as folder:
        extraction.draw(folder / "pictures", options.images)
        config = extraction.config_of(options.model, folder, options)
        on_cuda = config.model_copy(update={"device": "cuda", "amp_dtype": "bfloat16"})
        found = extraction.measured(on_cuda, options.rounds, 1 / LEAST_SPEED)
    facts = {"device": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    publish("gpu_extract", argv, facts | found | {"speed": speed(found)})
    return 0


def speed(found: dict[str, Any]) -> dict[str, Any]:
    """The cost as the share of the bare forward's speed that is left, and whether it is enough.

    Example:
        >>> speed({"cost": {"best": 1.25, "hit": False}})
        {'best': 0.8, 'hit': False}
    """
    share, hit = round(1 / found["cost"]["best"], 4), found["cost"]["hit"]
    note(f"M12: {share:.3f} of the bare forward, target {LEAST_SPEED:g}: {outcome(hit=hit)}")
    return {"best": share, "hit": hit}
