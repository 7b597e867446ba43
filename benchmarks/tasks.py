"""Question: what accuracy do adaptors reach on small real and rendered tasks, without a download?

Method: each task's 800 train, 200 val and 2,000 test pictures (1,000 test pictures of textile; of
scikit-learn's digits 796, 196 and 792) are extracted once, with the demo's DINOv2 ViT-S/14 at four
taps. Every adaptor then trains 30 epochs at each setting of the same small grid of learning rates
and weight decays with seed 0; the setting with the best val top-1 (the lower val loss among equals)
is trained again with the other seeds, and so is the default setting of the adaptors that
``--untuned`` names. Test chooses nothing.

Reported: test top-1, mean and standard error over seeds (of training; the split is fixed), of every
task, of their mean and of the mean of the rendered ones, trainable parameters, and seconds of
training. Table on stderr; one JSON document as the last line of stdout and in
``benchmarks/results/tasks.json``, the table in ``tasks.md`` and a plot in ``tasks.png`` beside it.

A call that was cut off goes on where it was: a run that has ended is not trained again without
``--fresh``. Each result names the commits whose runs it is made of.

    python -m benchmarks tasks
    python -m benchmarks tasks --seeds 1 --grid default --tasks location --adaptors linear,losa
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

from benchmarks.record import attach, commit, note, publish
from benchmarks.sprites import TASKS as SPRITE_TASKS
from benchmarks.sprites import sprites
from benchmarks.suite import Result, line, markdown, standard_error
from benchmarks.suiteplot import picture
from demo.__main__ import prepare
from demo.assets import CACHE
from demo.command import losa, program
from demo.digits import digits, mnist
from demo.textile import textile
from losa.config import AdaptConfig
from losa.errors import MismatchError, UsageError

if TYPE_CHECKING:
    from losa.adapt.report import AdaptReport

Setting = tuple[float, float]
"""Learning rate and weight decay."""
DATA: Final[Mapping[str, Callable[[Path], Path]]] = MappingProxyType(
    {
        "textile": textile,
        "mnist": mnist,
        "digits": digits,
        **{name: partial(sprites, name) for name in SPRITE_TASKS},
    }
)
_DEFAULTS: Final = AdaptConfig()
UNTUNED: Final = (_DEFAULTS.lr, _DEFAULTS.weight_decay)
"""The setting of who tunes nothing."""
GRIDS: Final[Mapping[str, Sequence[Setting]]] = MappingProxyType(
    {
        "default": (UNTUNED,),
        "small": tuple(product((1e-3, 3e-3, 1e-2), (_DEFAULTS.weight_decay,))),
        "wide": tuple(product((3e-4, 1e-3, 3e-3, 1e-2), (1e-2, 5e-1))),
    }
)
"""Settings by the name of their grid; all adaptors get the same."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What all trainings of one task share."""

    task: str
    store: Path
    store_bytes: int
    runs: Path
    epochs: int
    fresh: bool = True

    def train(self, adaptor: str, setting: Setting, seed: int) -> tuple[AdaptReport, str]:
        """Train one adaptor at one setting and seed, and say at which commit that was."""
        lr, decay = setting
        name = f"{adaptor}-lr{lr:g}-wd{decay:g}-seed{seed}"
        config = AdaptConfig(
            store=self.store,
            out=self.runs / f"{self.store.stem}-{self.epochs}epochs" / name,
            adaptor=adaptor,
            lr=lr,
            weight_decay=decay,
            epochs=self.epochs,
            seed=seed,
            overwrite=self.fresh,
        )
        return train_or_find(config)

    def measure(
        self, adaptor: str, grid: Sequence[Setting], seeds: int, *, untuned: bool = False
    ) -> Result:
        """Choose a setting on val with seed 0, then train it with the other seeds.

        ``untuned``: train the default setting with all seeds too.
        """
        first = {setting: self.train(adaptor, setting, 0) for setting in grid}
        best = max(grid, key=lambda setting: _on_val(first[setting][0]))
        of_setting = {}
        for setting in (best, UNTUNED) if untuned else (best,):
            again = first.get(setting) or self.train(adaptor, setting, 0)
            others = [self.train(adaptor, setting, seed) for seed in range(1, seeds)]
            of_setting[setting] = [again, *others]
        runs = [*first.values(), *(run for found in of_setting.values() for run in found)]
        reports = [report for report, _ in of_setting[best]]
        tests = _tests(reports)
        return Result(
            task=self.task,
            adaptor=adaptor,
            test_top1=statistics.fmean(tests),
            test_error=standard_error(tests),
            val_top1=statistics.fmean(report.metrics["val"]["top1"] for report in reports),
            trainable=reports[0].parameters["trainable"],
            seconds=statistics.fmean(report.timing["seconds"] for report in reports),
            store_bytes=self.store_bytes,
            lr=best[0],
            weight_decay=best[1],
            test_by_seed=tests,
            commits=tuple(sorted({commit for _, commit in runs})),
            untuned_by_seed=_tests([r for r, _ in of_setting[UNTUNED]]) if untuned else (),
        )


@program
def main(argv: list[str]) -> int:
    """Run the tasks; returns the exit code."""
    from losa.adapt.registry import ADAPTORS

    options = _options(argv)
    tasks = named(options.tasks or ",".join(DATA), tuple(DATA), "--tasks")
    adaptors = named(options.adaptors or ",".join(ADAPTORS), tuple(ADAPTORS), "--adaptors")
    untuned = named(options.untuned, tuple(ADAPTORS), "--untuned") if options.untuned else []
    grid = GRIDS[options.grid]
    results = []
    for task in tasks:
        bench = extracted(task, options)
        for adaptor in adaptors:
            is_untuned = adaptor in untuned
            results.append(bench.measure(adaptor, grid, options.seeds, untuned=is_untuned))
            note(line(results[-1]))
    details = {
        "img_size": options.img_size,
        "taps": options.taps,
        "epochs": options.epochs,
        "grid": [{"lr": lr, "weight_decay": decay} for lr, decay in grid],
        "seeds": options.seeds,
    }
    told = markdown(results, SPRITE_TASKS)
    note(told)
    attach("tasks.md", f"{told}\n".encode())
    attach("tasks.png", picture(results))
    publish("tasks", argv, {**details, "results": [asdict(result) for result in results]})
    return 0


def _options(argv: list[str]) -> argparse.Namespace:
    """Parse the flags."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks tasks")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds, 1 or more")
    parser.add_argument("--tasks", help=f"some of {','.join(DATA)}; all of them by default")
    parser.add_argument("--adaptors", help="all of them by default")
    parser.add_argument("--grid", choices=sorted(GRIDS), default="small")
    help_text = "adaptors whose default setting is trained with all seeds too"
    parser.add_argument("--untuned", default="losa", help=help_text)
    parser.add_argument("--epochs", type=int, default=30, help="of every training run")
    parser.add_argument("--img-size", type=int, default=112, help="a multiple of 14")
    parser.add_argument("--taps", default="every:3")
    add_places(parser)
    return parser.parse_args(argv)


def add_places(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say where stores, runs and pictures lie, and whether runs are found."""
    parser.add_argument("--out", type=Path, default=Path("runs/suite"))
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--fresh", action="store_true", help="train also what has ended before")


def named(text: str, known: tuple[str, ...], flag: str) -> list[str]:
    """The comma-separated names, all of which must be known.

    Raises:
        UsageError: one is not.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise UsageError(flag, f"{name!r} is unknown", f"use some of {','.join(known)}")
    return names


def extracted(task: str, options: argparse.Namespace, flags: Sequence[str] = ()) -> Bench:
    """Build a task's pictures and extract them, or find them extracted; ``flags`` are more ones."""
    others = "".join(f"-{flag.lstrip('-')}" for flag in flags)
    with redirect_stdout(sys.stderr):
        folder = DATA[task](options.cache)
        # By the name of the pictures, whose version it holds: they change, their listing does not.
        name = f"{folder.name}-{options.img_size}px-{options.taps.replace(':', '')}{others}"
        store = options.out / f"{name}.zarr"
        weights = prepare(options.cache)
        extracted = losa(
            *("extract", "--model", "dinov2_s", "--weights", str(weights)),
            *("--dataset", f"folder:{folder}", "--img-size", str(options.img_size)),
            *("--taps", options.taps, "--store", str(store), *flags),
        )
    size = extracted["bytes"]
    return Bench(f"{task}{others}", store, size, options.out, options.epochs, options.fresh)


def train_or_find(config: AdaptConfig) -> tuple[AdaptReport, str]:
    """Train, and say at which commit that was.

    A run of an earlier call in ``config.out`` is found, or gone on with, unless ``overwrite`` says
    not to or it was of another configuration or store. The commit is that of the call that ended
    it, or ``unknown`` of a run that no call here has trained.
    """
    from losa.adapt.train import adapt

    assert config.out is not None
    mark = config.out.with_name(f"{config.out.name}.commit")
    # Before the training: between its end and the mark a call could be cut off.
    if config.overwrite or not (config.out / "report.json").is_file():
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(commit())
    try:
        report = adapt(config)
    except MismatchError:
        mark.write_text(commit())
        report = adapt(config.model_copy(update={"overwrite": True}))
    return report, mark.read_text() if mark.is_file() else "unknown"


def _tests(reports: Sequence[AdaptReport]) -> tuple[float, ...]:
    return tuple(float(report.metrics["test"]["top1"]) for report in reports)


def _on_val(report: AdaptReport) -> tuple[float, float]:
    """What settings are chosen by: val top-1, then the lower val loss."""
    val = report.metrics["val"]
    return val["top1"], -val["loss"]
