"""Do the taps that ``losa scout`` advises do as well as all of them, for fewer bytes?

Method: each task's pictures are scouted, and extracted once at all twelve blocks of the demo's
DINOv2 ViT-S/14. LoSA then trains on that one store with all its taps and with the advised ones,
``losa adapt``'s own settings but for 20 epochs instead of 30, for the sake of time, and the same
seeds for both. Test chooses nothing: the scout looks at train and val alone.

Reported: test top-1 of both, mean and standard error over seeds, the difference, and the advised
share of the bytes. Targets: no more than 0.5 points below all taps, at 40 % of the bytes or less.
Table on stderr; one JSON document as the last line of stdout and in ``results/scouting.json``.

    python -m benchmarks scouting
    python -m benchmarks scouting --tasks location --seeds 1 --epochs 3
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.record import note, publish
from benchmarks.rounds import outcome
from benchmarks.suite import standard_error
from benchmarks.tasks import DATA, add_places, extracted, named, train_or_find
from demo.__main__ import prepare
from demo.command import losa, program
from losa.config import AdaptConfig

MOST_BEHIND: Final = 0.005
MOST_BYTES: Final = 0.4


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Test top-1 of one set of taps, by seed, seconds of one training, and the runs' commits."""

    taps: str
    by_seed: tuple[float, ...]
    seconds: float
    commits: tuple[str, ...] = ()

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.by_seed)

    @property
    def error(self) -> float | None:
        """Standard error of the mean; one seed has none."""
        return standard_error(self.by_seed)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Both sets of taps on one task, and the share of the bytes that the advised ones take."""

    task: str
    share: float
    every: Accuracy
    advised: Accuracy
    scout_seconds: float

    @property
    def behind(self) -> float:
        """By how much the advised taps are worse; sums of decimal shares are rounded off."""
        return round(self.every.mean - self.advised.mean, 9)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, with the targets that were hit."""
        hits = {"top1": self.behind <= MOST_BEHIND, "bytes": self.share <= MOST_BYTES}
        return {**asdict(self), "behind": round(self.behind, 6), "hits": hits}


@program
def main(argv: list[str]) -> int:
    """Scout, extract and train every task, print a table, and publish the document."""
    options = _options(argv)
    started = time.perf_counter()
    found, advice = [], {}
    for task in named(options.tasks, tuple(DATA), "--tasks"):
        advice[task], seconds = scouted(task, options)
        found.append(trained(task, advice[task], seconds, options))
        note(line(found[-1]))
    note("\n".join(line(result) for result in found))
    details = {
        "img_size": options.img_size,
        "epochs": options.epochs,
        "seeds": options.seeds,
        "targets": {"behind": MOST_BEHIND, "share": MOST_BYTES},
        "seconds": round(time.perf_counter() - started, 1),
        "scouts": advice,
    }
    publish("scouting", argv, {**details, "results": [result.to_json() for result in found]})
    return 0


def scouted(task: str, options: argparse.Namespace) -> tuple[dict[str, Any], float]:
    """The scout's result, as far as it says why, and seconds of the whole command."""
    with redirect_stdout(sys.stderr):
        folder = DATA[task](options.cache)
        weights = prepare(options.cache)
        started = time.perf_counter()
        result = losa(
            *("scout", "--model", "dinov2_s", "--weights", str(weights)),
            *("--dataset", f"folder:{folder}", "--img-size", str(options.img_size)),
            *("--out", str(options.out / f"scout-{task}")),
        )
    kept = ("evidence", "criterion", "commonest_class", "advice", "best", "trained", "held_out")
    return {name: result[name] for name in kept}, round(time.perf_counter() - started, 1)


def trained(
    task: str, scout: dict[str, Any], seconds: float, options: argparse.Namespace
) -> Outcome:
    """Train on all taps and on the advised ones of one store."""
    store = extracted(task, argparse.Namespace(**{**vars(options), "taps": "all"})).store
    taps = ",".join(str(tap) for tap in scout["advice"]["taps"])
    seeds = range(options.seeds)
    every = _accuracy(task, store, "all", seeds, options)
    advised = _accuracy(task, store, taps, seeds, options)
    return Outcome(task, scout["advice"]["share"], every, advised, seconds)


def line(result: Outcome) -> str:
    """One row of the table.

    Example:
        >>> every, advised = Accuracy("all", (0.82, 0.84), 9.0), Accuracy("5,11", (0.82,), 3.0)
        >>> text = line(Outcome("location", 0.1667, every, advised, 60.0))
        >>> text[:48]
        'location   all 83.00 ± 1.00 %   5,11 82.00 ± - %'
        >>> text[48:]
        '  1.00 points behind: miss  17 % of the bytes: hit'
    """
    behind, share = 100 * result.behind, 100 * result.share
    return (
        f"{result.task:10} {_text(result.every)}   {_text(result.advised)}"
        f"  {behind:.2f} points behind: {outcome(hit=result.behind <= MOST_BEHIND)}"
        f"  {share:.0f} % of the bytes: {outcome(hit=result.share <= MOST_BYTES)}"
    )


def _text(one: Accuracy) -> str:
    error = "-" if one.error is None else f"{100 * one.error:.2f}"
    return f"{one.taps} {100 * one.mean:.2f} ± {error} %"


def _accuracy(
    task: str, store: Path, taps: str, seeds: Sequence[int], options: argparse.Namespace
) -> Accuracy:
    """Train LoSA with some taps of a store at every seed."""
    found = [
        train_or_find(
            AdaptConfig(
                store=store,
                out=options.out / f"scouting-{task}-{taps.replace(',', '_')}-seed{seed}",
                taps=taps,
                epochs=options.epochs,
                seed=seed,
                overwrite=options.fresh,
            )
        )
        for seed in seeds
    ]
    reports = [report for report, _ in found]
    return Accuracy(
        taps,
        tuple(float(report.metrics["test"]["top1"]) for report in reports),
        statistics.fmean(report.timing["seconds"] for report in reports),
        tuple(sorted({commit for _, commit in found})),
    )


def _options(argv: list[str]) -> argparse.Namespace:
    """Parse the flags."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks scouting")
    parser.add_argument("--tasks", default="location,orientation,count,textile")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds, 1 or more")
    parser.add_argument("--epochs", type=int, default=20, help="of every run")
    parser.add_argument("--img-size", type=int, default=112, help="a multiple of 14")
    add_places(parser)
    return parser.parse_args(argv)
