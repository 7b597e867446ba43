"""Question: which of the points that LoSA's description leaves open matter, and which way?

Method: the stores of ``python -m benchmarks tasks`` (four taps of DINOv2 ViT-S/14 at 112 px, 800
training images), the default recipe, one switch changed at a time, two seeds. Defaults are to be
chosen on val; test is listed to show that val did not fool us.

    python -m benchmarks ablation
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.record import note, publish
from benchmarks.tasks import DATA, add_places, extracted, named, train_or_find
from demo.command import program
from losa.config import AdaptConfig

VARIANTS: Final[Mapping[str, dict[str, Any]]] = {
    "default": {},
    "mixer_norm: true": {"mixer_norm": True},
    "residual: sum": {"residual": "sum"},
    "residual: stream": {"residual": "stream"},
    "order: token-channel": {"order": "token-channel"},
    "pool: cls": {"pool": "cls"},
    "pool: mean": {"pool": "mean"},
    "standardise: raw": {"standardise": "raw"},
    "rank: 2": {"rank": 2},
    "rank: 16": {"rank": 16},
    "taps: last": {"taps": "last"},
    "dropout: 0.2": {"dropout": 0.2},
    "mixup: 0.4": {"mixup": 0.4},
}
"""One switch each; the first is what the others are compared with."""


@program
def main(argv: list[str]) -> int:
    """Train every variant, print a table, and publish ``results/ablation.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks ablation")
    parser.add_argument("--tasks", default="location,mnist")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--img-size", type=int, default=112, help="a multiple of 14")
    parser.add_argument("--taps", default="every:3")
    add_places(parser)
    options = parser.parse_args(argv)
    options.epochs = AdaptConfig().epochs
    results = []
    for task in named(options.tasks, tuple(DATA), "--tasks"):
        store = extracted(task, options).store
        for name, changes in VARIANTS.items():
            results.append(measure(task, store, name, changes, options))
            note(line(results[-1]))
    publish("ablation", argv, {"seeds": options.seeds, "results": results})
    return 0


def measure(
    task: str, store: Path, name: str, changes: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    """Mean val and test top-1 of one variant over the seeds."""
    found = []
    for seed in range(options.seeds):
        out = options.out / f"ablation-{task}-{name.replace(': ', '-')}-seed{seed}"
        config = AdaptConfig(store=store, out=out, seed=seed, overwrite=options.fresh, **changes)
        found.append(train_or_find(config))
    reports = [report for report, _ in found]
    metrics = [report.metrics for report in reports]
    return {
        "task": task,
        "variant": name,
        "val_top1": statistics.fmean(item["val"]["top1"] for item in metrics),
        "val_loss": statistics.fmean(item["val"]["loss"] for item in metrics),
        "test_top1": statistics.fmean(item["test"]["top1"] for item in metrics),
        "trainable": reports[0].parameters["trainable"],
        "seconds": statistics.fmean(report.timing["seconds"] for report in reports),
        "commits": sorted({commit for _, commit in found}),
    }


def line(result: Mapping[str, Any]) -> str:
    """One row of the table."""
    return (
        f"{result['task']:10} {result['variant']:22} val {100 * result['val_top1']:5.2f} %"
        f"  loss {result['val_loss']:.3f}  test {100 * result['test_top1']:5.2f} %"
        f"  {result['trainable']:8,} parameters  {result['seconds']:6.1f} s"
    )
