"""Does successive halving find what the full grid finds, and at what share of its cost?

Method: on each store, one after the other in one process, the full grid (ranks 4, 8, 16 by four
learning rates, each with every seed) and the same grid with halving, both as ``losa sweep`` trains
them, from opening to the last result. Cost is counted in epochs trained, over all trials, and in
seconds. What halving found is looked up in the full grid's table. Rungs and eta were chosen on four
of the tasks (count, orientation, mnist, digits), whose full grids tell what any rungs would have
found: location and textile test that choice. docs/results.md, section "Successive halving".

Reported for each store: the shares of epochs and of seconds (target <= 0.4), how far the setting
that halving found is below the one that the full grid chose on val, in points of val and of test
top-1 (target <= 0.3), its place in the full grid's ranking, and whether its trials have the
top-1 they have there. Table on stderr; one JSON document as the last line of stdout and in
``benchmarks/results/halving.json``.

    python -m benchmarks tasks
    python -m benchmarks halving
    python -m benchmarks halving --epochs 6 --rungs 1 3 --seeds 1 runs/demo/mnist.zarr
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.record import note, publish
from benchmarks.stores import scratch
from losa.adapt.choice import setting_key
from losa.config import SweepConfig
from losa.sweep.choosing import Setting, ranked
from losa.sweep.run import Sweep

STORES: Final = tuple(
    f"runs/suite/{name}-112px-every3.zarr"
    for name in (
        "location-v1-800-200-2000",
        "textile",
        "count-v1-800-200-2000",
        "orientation-v1-800-200-2000",
        "mnist",
        "digits-8x8",
    )
)
"""What ``python -m benchmarks tasks --grid default`` leaves."""
RANKS: Final = (4, 8, 16)
RATES: Final = (1e-3, 2e-3, 4e-3, 8e-3)
COST, POINTS = 0.4, 0.3
"""Targets: at most so much of the full grid's cost, and so many points below its best."""


def main(argv: list[str]) -> int:
    """Run the benchmark; returns the exit code."""
    options = _options(argv)
    torch.set_num_threads(options.threads)
    with scratch(options.folder) as folder:
        found = [contest(path, folder / path.stem, options) for path in options.stores]
    note(f"{'store':36} {'epochs':>7} {'seconds':>8} {'val':>7} {'test':>7}  place")
    for one in found:
        note(
            f"{one['store']:36} {one['epochs']['share']:7.2f} {one['seconds']['share']:8.2f}"
            f" {one['below']['val']:7.2f} {one['below']['test']:7.2f}"
            f"  {one['place']} of {one['settings']}"
        )
    publish("halving", argv, {"threads": options.threads, "results": found})
    return 0


def contest(store: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The full grid and the halved one on a store, and what came out."""
    sections = {
        "base": {"epochs": options.epochs, "taps": options.taps, "device": "cpu"},
        "grid": {"rank": list(RANKS), "lr": list(RATES)},
        "seeds": list(range(options.seeds)),
    }
    halving = {"rungs": options.rungs, "eta": options.eta}
    full, full_seconds = trained(store, folder / "full", sections)
    halved, seconds = trained(store, folder / "halved", {**sections, "halving": halving})
    epochs, full_epochs = (sum(one.epochs for one in sweep.results()) for sweep in (halved, full))
    return {
        "store": store.stem,
        "sections": {**sections, "halving": halving},
        "epochs": {"full": full_epochs, "halved": epochs, "share": epochs / full_epochs},
        "seconds": {"full": full_seconds, "halved": seconds, "share": seconds / full_seconds},
        **compared(ranked(full.results()), ranked(halved.results())[0]),
        "targets": {"cost": COST, "points": POINTS},
    }


def trained(store: Path, out: Path, sections: Mapping[str, Any]) -> tuple[Sweep, float]:
    """A sweep trained to its end, and the seconds that it took."""
    start = time.perf_counter()
    sweep = Sweep(SweepConfig(store=store, out=out), sections, out)
    sweep.train()
    return sweep, time.perf_counter() - start


def compared(full: Sequence[Setting], found: Setting) -> dict[str, Any]:
    """How far what halving found is below the best of the full grid, in its table."""
    keys = [setting_key(one.best.config) for one in full]
    place = keys.index(setting_key(found.best.config))
    below = {
        split: 100 * (_top1(full[0], split) - _top1(full[place], split))
        for split in ("val", "test")
    }
    there = {one.digest: one.metrics for one in full[place].results}
    return {
        "place": place + 1,
        "settings": len(full),
        "found": {name: found.best.config[name] for name in ("rank", "lr")},
        "best": {name: full[0].best.config[name] for name in ("rank", "lr")},
        "top1": {split: [_top1(full[0], split), _top1(full[place], split)] for split in below},
        "below": below,
        "same_top1": all(
            one.metrics[split]["top1"] == there[one.digest][split]["top1"]
            for one in found.results
            for split in below
        ),
    }


def _top1(setting: Setting, split: str) -> float:
    value = setting.summary(split)["top1"]["mean"]
    assert value is not None
    return value


def _options(argv: list[str]) -> argparse.Namespace:
    """Parse the flags."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks halving", description=__doc__)
    parser.add_argument("stores", type=Path, nargs="*", default=[Path(one) for one in STORES])
    parser.add_argument("--epochs", type=int, default=18)
    parser.add_argument("--rungs", type=int, nargs="+", default=[2, 5])
    parser.add_argument("--eta", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--taps", default="all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=None, help="for runs that are not kept")
    return parser.parse_args(argv)
