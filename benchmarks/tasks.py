"""Question: what accuracy do adaptors reach on small real and rendered tasks, without a download?

Method: each task's 800 train, 200 val and 1,000 or 2,000 test pictures are extracted once, with
the demo's DINOv2 ViT-S/14 at four taps. Every adaptor then trains 30 epochs at each setting of the
same small grid of learning rates and weight decays with seed 0; the setting with the best val top-1
(the lower val loss among equals) is trained again with the other seeds. Test chooses nothing.

Reported: test top-1, mean and standard error over seeds (of training; the split is fixed),
trainable parameters, and seconds of training. Table on stderr; one JSON document as the last line
of stdout and in ``benchmarks/results/tasks.json``.

    python -m benchmarks tasks
    python -m benchmarks tasks --seeds 1 --grid default --tasks location
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from benchmarks.record import note, publish
from benchmarks.sprites import TASKS as SPRITE_TASKS
from benchmarks.sprites import sprites
from demo.__main__ import prepare
from demo.assets import CACHE
from demo.command import CommandFailedError, losa
from demo.digits import digits
from demo.textile import textile
from losa.config import AdaptConfig
from losa.errors import LosaError, UsageError

if TYPE_CHECKING:
    from losa.adapt.report import AdaptReport

DATA: Final[Mapping[str, Callable[[Path], Path]]] = MappingProxyType(
    {
        "digits": digits,
        "textile": textile,
        **{name: partial(sprites, name) for name in SPRITE_TASKS},
    }
)
_DEFAULTS = AdaptConfig()
GRIDS: Final[Mapping[str, Sequence[tuple[float, float]]]] = MappingProxyType(
    {
        "default": ((_DEFAULTS.lr, _DEFAULTS.weight_decay),),
        "small": tuple(product((1e-3, 3e-3, 1e-2), (_DEFAULTS.weight_decay,))),
        "wide": tuple(product((3e-4, 1e-3, 3e-3, 1e-2), (1e-2, 5e-1))),
    }
)
"""Settings (learning rate, weight decay) by the name of their grid; all adaptors get the same."""


@dataclass(frozen=True, slots=True)
class Result:
    """One adaptor on one task: accuracies in 0..1, seconds of one training run."""

    task: str
    adaptor: str
    test_top1: float
    test_error: float | None
    val_top1: float
    trainable: int
    seconds: float
    store_bytes: int
    lr: float
    weight_decay: float
    test_by_seed: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Bench:
    """What all trainings of one task share."""

    task: str
    store: Path
    store_bytes: int
    runs: Path
    epochs: int

    def train(self, adaptor: str, setting: tuple[float, float], seed: int) -> AdaptReport:
        """Train one adaptor at one setting and seed; a run of an earlier call is replaced."""
        from losa.adapt.train import adapt

        lr, decay = setting
        name = f"{self.task}-{adaptor}-lr{lr:g}-wd{decay:g}-seed{seed}"
        return adapt(
            AdaptConfig(
                store=self.store,
                out=self.runs / name,
                adaptor=adaptor,
                lr=lr,
                weight_decay=decay,
                epochs=self.epochs,
                seed=seed,
                overwrite=True,
            )
        )

    def measure(self, adaptor: str, grid: Sequence[tuple[float, float]], seeds: int) -> Result:
        """Choose a setting on val with seed 0, then train it with the other seeds."""
        first = [self.train(adaptor, setting, 0) for setting in grid]
        best = max(range(len(grid)), key=lambda number: _on_val(first[number]))
        others = [self.train(adaptor, grid[best], seed) for seed in range(1, seeds)]
        reports = [first[best], *others]
        tests = tuple(float(report.metrics["test"]["top1"]) for report in reports)
        error = statistics.stdev(tests) / len(tests) ** 0.5 if len(tests) > 1 else None
        return Result(
            task=self.task,
            adaptor=adaptor,
            test_top1=statistics.fmean(tests),
            test_error=error,
            val_top1=statistics.fmean(report.metrics["val"]["top1"] for report in reports),
            trainable=reports[0].parameters["trainable"],
            seconds=statistics.fmean(report.timing["seconds"] for report in reports),
            store_bytes=self.store_bytes,
            lr=grid[best][0],
            weight_decay=grid[best][1],
            test_by_seed=tests,
        )


def main(argv: list[str]) -> int:
    """Run the tasks; returns the exit code."""
    options = _options(argv)
    try:
        tasks = named(options.tasks, tuple(DATA), "--tasks")
        adaptors = named(options.adaptors, ("linear", "linear-all", "losa"), "--adaptors")
        results = []
        for task in tasks:
            bench = extracted(task, options)
            for adaptor in adaptors:
                results.append(bench.measure(adaptor, GRIDS[options.grid], options.seeds))
                note(line(results[-1]))
    except LosaError as error:
        print(f"losa: error: {error}", file=sys.stderr)
        return error.exit_code
    except CommandFailedError as error:
        return error.exit_code
    note("\n".join(line(result) for result in results))
    details = {
        "img_size": options.img_size,
        "taps": options.taps,
        "epochs": options.epochs,
        "grid": [{"lr": lr, "weight_decay": decay} for lr, decay in GRIDS[options.grid]],
        "seeds": options.seeds,
    }
    publish("tasks", argv, {**details, "results": [asdict(result) for result in results]})
    return 0


def line(result: Result) -> str:
    """One row of the table.

    Example:
        >>> line(Result("digits", "losa", 0.956, 0.002, 0.95, 41010, 20.0, 1, 2e-3, 1e-2, (0.956,)))
        'digits     losa        test 95.60 ± 0.20 %  val 95.00 %    41,010 parameters    20.0 s'
    """
    error = "-" if result.test_error is None else f"{100 * result.test_error:.2f}"
    return (
        f"{result.task:10} {result.adaptor:11} test {100 * result.test_top1:5.2f} ± {error} %"
        f"  val {100 * result.val_top1:5.2f} %  {result.trainable:8,} parameters"
        f"  {result.seconds:6.1f} s"
    )


def _options(argv: list[str]) -> argparse.Namespace:
    """Parse the flags."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks tasks")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds, 1 or more")
    parser.add_argument("--tasks", default="digits,location,textile")
    parser.add_argument("--adaptors", default="linear,linear-all,losa")
    parser.add_argument("--grid", choices=sorted(GRIDS), default="small")
    parser.add_argument("--epochs", type=int, default=30, help="of every training run")
    parser.add_argument("--img-size", type=int, default=112, help="a multiple of 14")
    parser.add_argument("--taps", default="every:3")
    parser.add_argument("--out", type=Path, default=Path("runs/tasks"))
    parser.add_argument("--cache", type=Path, default=CACHE)
    return parser.parse_args(argv)


def named(text: str, known: tuple[str, ...], flag: str) -> list[str]:
    """The comma-separated names, all of which must be known.

    Raises:
        UsageError: one is not.
    """
    names = text.split(",")
    for name in names:
        if name not in known:
            raise UsageError(flag, f"{name!r} is unknown", f"use some of {','.join(known)}")
    return names


def extracted(task: str, options: argparse.Namespace, flags: Sequence[str] = ()) -> Bench:
    """Build a task's pictures and extract them, or find them extracted; ``flags`` are more ones."""
    others = "".join(f"-{flag.lstrip('-')}" for flag in flags)
    name = f"{task}-{options.img_size}px-{options.taps.replace(':', '')}{others}"
    store = options.out / f"{name}.zarr"
    with redirect_stdout(sys.stderr):
        folder = DATA[task](options.cache)
        weights = prepare(options.cache)
        extracted = losa(
            *("extract", "--model", "dinov2_s", "--weights", str(weights)),
            *("--dataset", f"folder:{folder}", "--img-size", str(options.img_size)),
            *("--taps", options.taps, "--store", str(store), *flags),
        )
    return Bench(f"{task}{others}", store, extracted["bytes"], options.out, options.epochs)


def _on_val(report: AdaptReport) -> tuple[float, float]:
    """What settings are chosen by: val top-1, then the lower val loss."""
    val = report.metrics["val"]
    return val["top1"], -val["loss"]
