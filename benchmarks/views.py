"""Question: do cached augmented views raise accuracy over the clean pictures alone?

Method: each task's pictures are extracted once for each policy: with one view, and with V views of
every train picture by ``crop-flip`` and by ``randaug``. On each store LoSA trains at the default
settings with the same seeds; with V views every epoch shows one view of each picture, drawn anew,
so that all runs take the same steps. Val and test are clean pictures and the same ones throughout.
No setting is chosen, so test chooses nothing.

Reported, whatever its sign: test top-1, mean and standard error over seeds (of training; the split
and the views are fixed), the difference from one view, the same seeds paired, and bytes of the
stores. Table on stderr; one JSON document as the last line of stdout and in
``benchmarks/results/views.json``.

    python -m benchmarks views
    python -m benchmarks views --seeds 1 --epochs 1 --img-size 28 --taps last
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final, get_args

from benchmarks.record import note, publish
from benchmarks.suite import Result, line, standard_error
from benchmarks.tasks import DATA, GRIDS, add_places, extracted, named
from demo.command import program
from losa.config import AdaptConfig, Policy

ADAPTOR: Final = "losa"
POLICIES: Final[tuple[str, ...]] = get_args(Policy)


@program
def main(argv: list[str]) -> int:
    """Measure every task with one view and with several; returns the exit code."""
    options = _options(argv)
    found: list[Result] = []
    for task in named(options.tasks, tuple(DATA), "--tasks"):
        for flags in variants(options.views):
            bench = extracted(task, options, flags)
            result = bench.measure(ADAPTOR, GRIDS["default"], options.seeds)
            found.append(replace(result, task=" ".join([task, *flags])))
            note(line(found[-1]))
    results = [described(result, found) for result in found]
    note("\n".join(f"{item['task']:40} {_gain(item)}" for item in results))
    details = {name: getattr(options, name) for name in ("img_size", "taps", "epochs", "seeds")}
    publish("views", argv, {**details, "adaptor": ADAPTOR, "results": results})
    return 0


def variants(views: int) -> list[list[str]]:
    """Flags of extraction: none, then so many views by each policy."""
    return [[], *(["--views", str(views), "--augment", policy] for policy in POLICIES)]


def described(result: Result, found: Sequence[Result]) -> dict[str, Any]:
    """A result, and how far above one view of its task it is: mean and standard error of pairs."""
    task = result.task.split()[0]
    base = next(item for item in found if item.task == task)
    gains = [a - b for a, b in zip(result.test_by_seed, base.test_by_seed, strict=True)]
    error = standard_error(gains)
    return {**asdict(result), "gain": statistics.fmean(gains), "gain_error": error}


def _gain(item: Mapping[str, Any]) -> str:
    error = "-" if item["gain_error"] is None else f"{100 * item['gain_error']:.2f}"
    return f"test {100 * item['test_top1']:5.2f} %, {100 * item['gain']:+.2f} ± {error} points"


def _options(argv: list[str]) -> argparse.Namespace:
    """Parse the flags."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks views")
    parser.add_argument("--tasks", default="textile")
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3, help="training seeds, 1 or more")
    parser.add_argument("--epochs", type=int, default=AdaptConfig().epochs, help="of every run")
    parser.add_argument("--img-size", type=int, default=112, help="a multiple of 14")
    parser.add_argument("--taps", default="every:3")
    add_places(parser)
    return parser.parse_args(argv)
