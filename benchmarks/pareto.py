"""Question: what does accuracy cost, by each way to adapt a backbone, on one task?

Method: full fine-tuning, LoRA, BitFit, deep prompts, a linear probe, ladder side-tuning and LoSA
on the pictures and splits of one task of ``python -m benchmarks tasks``. Accuracies are those of
``benchmarks.online`` and ``benchmarks.tasks``: val chooses each learning rate with seed 0, the
other seeds train at that, test chooses nothing; trainings that these have done are found. LoSA live
is the very training of LoSA cached, beside the backbone (tests/live/test_training.py), so its
accuracy is the same figure. Costs are measured in a process for each method: a few epochs on some
pictures, decoded beforehand where the backbone runs in each step; the first epoch counts nowhere in
the speed. Memory is the most above what the process held before backbone, store and network were
opened (pictures and imports aside): on a CUDA device what torch allocated, else anonymous memory.
FLOPs of one image are counted by torch (two a multiplication), from pixels to logits.

Reported: test top-1, mean and standard error over seeds, learned parameters (head included), bytes
of training memory, GFLOPs of inference, images/s of training. Table on stderr; one JSON document as
the last line of stdout and in ``benchmarks/results/pareto.json``, a plot in ``pareto.png`` beside
it. What was killed goes on at the first training or measurement that has no record.

    python -m benchmarks pareto
    python -m benchmarks pareto --methods linear,losa --seeds 1 --epochs 5
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from benchmarks import online, tasks
from benchmarks.memory import ROOT
from benchmarks.onlinenets import METHODS
from benchmarks.paretocosts import LIVE, Costs, measured
from benchmarks.paretoplot import Row, line, picture
from benchmarks.record import attach, commit, note, publish
from benchmarks.suite import Result
from demo.__main__ import prepare
from demo.assets import CACHE
from demo.command import losa, program
from losa.errors import MismatchError
from losa.store.files import canonical_json, create_once, read_json

CACHED: Final = ("linear", "lst", "losa")
ORDER: Final = (*METHODS, LIVE, *CACHED)
DECIDING: Final = (
    *("task", "model", "weights", "img_size", "taps", "batch_size"),
    *("amp_dtype", "device", "cost_images"),
)
"""Options that decide what a method costs."""


@dataclass(frozen=True, eq=False)
class Study:
    """One task and what has been opened of it; nothing is, until a method needs it."""

    folder: Path
    options: argparse.Namespace

    @cached_property
    def cached(self) -> tasks.Bench:
        """The task's store, which ``benchmarks.tasks`` shares where the model is its own."""
        options = self.options
        name = f"{options.task}-{options.img_size}px-{options.taps.replace(':', '')}"
        store = options.cached_out / f"{name}.zarr"
        with redirect_stdout(sys.stderr):
            found = losa(
                *("extract", "--model", options.model, "--weights", options.weights),
                *("--dataset", f"folder:{self.folder}", "--img-size", str(options.img_size)),
                *("--taps", options.taps, "--store", str(store), "--device", options.device),
            )
        task, runs = options.task, options.cached_out
        return tasks.Bench(task, store, found["bytes"], runs, options.epochs, fresh=False)

    @cached_property
    def online(self) -> online.Bench:
        """The task's pictures, and the backbone that is tuned."""
        return online.opened(self.options.task, self._of_online)

    def row(self, method: str) -> Row:
        """Accuracy and costs of one method."""
        found: online.Result | Result
        if method in METHODS:
            found = self.online.measure(method, self._of_online)
        else:
            adaptor = "losa" if method == LIVE else method
            grid = tasks.GRIDS[self.options.grid]
            found = self.cached.measure(adaptor, grid, self.options.seeds)
        costs, began = self.costs(method)
        return Row(
            method=method,
            test_top1=found.test_top1,
            test_error=found.test_error,
            val_top1=found.val_top1,
            lr=found.lr,
            commits=tuple(sorted({*found.commits, began})),
            **asdict(costs),
        )

    def costs(self, method: str) -> tuple[Costs, str]:
        """The record of a measurement, old or new, and the commit it was made at.

        Raises:
            MismatchError: the file there is of another measurement.
        """
        settings = {name: str(getattr(self.options, name)) for name in DECIDING}
        folder = self.options.out / "costs"
        path = folder / f"{self.options.task}-{method}.json"
        if not path.exists():
            began = commit()
            found = in_child(method, self.folder, self.cached.store, self.options)
            record = {"settings": settings, "commit": began, "costs": found}
            folder.mkdir(parents=True, exist_ok=True)
            create_once(path, canonical_json(record), scratch=folder, durable=True)
        known = read_json(path)
        if known["settings"] != settings:
            what = "is the record of another measurement"
            raise MismatchError(path, what, "remove it, or give another --out")
        return Costs(**known["costs"]), known["commit"]

    @property
    def _of_online(self) -> argparse.Namespace:
        """The options as ``benchmarks.online`` has them: its records, each method's own rates."""
        own = {"out": self.options.online_out, "lrs": ()}
        return argparse.Namespace(**{**vars(self.options), **own})


@program
def main(argv: list[str]) -> int:
    """Train and measure what has no record yet; returns the exit code."""
    options = _options(argv)
    if options.child:
        print(json.dumps(asdict(measured(options.child, options.folder, options))))
        return 0
    methods = tasks.named(options.methods, ORDER, "--methods")
    tasks.named(options.task, tuple(tasks.DATA), "--task")
    with redirect_stdout(sys.stderr):
        folder = tasks.DATA[options.task](options.cache)
        options.weights = options.weights or str(prepare(options.cache))
    study = Study(folder, options)
    rows = []
    for method in methods:
        rows.append(study.row(method))
        note(line(rows[-1]))
    note("\n".join(line(row) for row in rows))
    attach("pareto.png", picture(options.task, rows))
    names = (*DECIDING, "epochs", "seeds", "grid")
    details = {name: getattr(options, name) for name in names if name != "weights"}
    publish("pareto", argv, {**details, "results": [asdict(row) for row in rows]})
    return 0


def in_child(method: str, folder: Path, store: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure in a process of its own, so that nothing is left from the one before."""
    names = (*DECIDING, "num_workers")
    flags = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in names]
    places = {"folder": folder, "store": store, "scratch": options.out / "scratch"}
    flags += [f"--{name}={path.resolve()}" for name, path in places.items()]
    command = [sys.executable, "-m", "benchmarks", "pareto", "--child", method, *flags]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _options(argv: list[str]) -> argparse.Namespace:
    """Parse the flags."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks pareto")
    parser.add_argument("--task", default="location", help=f"one of {','.join(tasks.DATA)}")
    parser.add_argument("--methods", default=",".join(ORDER))
    parser.add_argument("--seeds", type=int, default=3, help="training seeds, 1 or more")
    parser.add_argument("--grid", choices=sorted(tasks.GRIDS), default="small", help="of cached")
    parser.add_argument("--epochs", type=int, default=30, help="of every training")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--img-size", type=int, default=112, help="a multiple of 14")
    parser.add_argument("--taps", default="every:3")
    parser.add_argument("--model", default="dinov2_s")
    parser.add_argument("--weights", default=None, help="default: the demo's, for dinov2_s")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--amp-dtype", default="none", help="none or bfloat16")
    parser.add_argument("--num-workers", type=int, default=1, help="decoding processes")
    parser.add_argument("--cost-images", type=int, default=128, help="of an epoch that is measured")
    parser.add_argument("--out", type=Path, default=Path("runs/pareto"), help="records of costs")
    parser.add_argument("--online-out", type=Path, default=Path("runs/online"))
    parser.add_argument("--cached-out", type=Path, default=Path("runs/suite"))
    parser.add_argument("--cache", type=Path, default=CACHE)
    for name, kind in (("child", str), ("folder", Path), ("store", Path), ("scratch", Path)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    return parser.parse_args(argv)
