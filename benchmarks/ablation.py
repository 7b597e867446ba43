"""Question: which of the points that LoSA's description leaves open matter, and which way?

Method: the stores of ``python -m benchmarks tasks``, the default recipe, one switch changed at a
time, or several by ``--combine``, over tasks and seeds. Defaults are to be chosen on val; test is
listed to show that val did not fool us. An arrow marks a difference to the default that exceeds two
standard errors of that difference, both sides taken as independent; of some tens of variants one or
two do by chance, and with few seeds the errors themselves are rough.

Every run is found again, so that a call that was cut off goes on where it was, and more variants,
tasks or seeds cost only themselves. Variants of taps that a store lacks are left out, and named:
``--taps all`` makes stores that have them, on which the other variants use the usual four taps.

Reported: top-1 of val and test, mean and standard error over seeds (of training; the split is
fixed), of every task and of their mean, trainable parameters, seconds of training. Tables on stderr
and in ``benchmarks/results/ablation.md``; one JSON document as the last line of stdout and in
``ablation.json``.

    python -m benchmarks ablation
    python -m benchmarks ablation --tasks location,mnist --only "rank: 2,rank: 8"
    python -m benchmarks ablation --only default --combine "pool: cls,standardise: raw"
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.ablationtable import Row, line, markdown
from benchmarks.record import attach, note, publish
from benchmarks.tasks import DATA, add_places, extracted, named, train_or_find
from demo.command import program
from losa.config import AdaptConfig
from losa.errors import InputError, UsageError
from losa.features import resolve_taps

if TYPE_CHECKING:
    from losa.adapt.report import AdaptReport

Changes = dict[str, Any]

BLOCKS: Final = tuple(range(12))
"""Of the backbone of the tasks, ViT-S."""
USUAL: Final = resolve_taps("every:3", BLOCKS)
"""Taps of the default."""


def _taps(text: str) -> Changes:
    return {"taps": ",".join(map(str, resolve_taps(text, BLOCKS)))}


_CHOICES: Final[Mapping[str, Sequence[Any]]] = {
    "standardise": ("store", "raw"),
    "start": ("first",),
    "residual": ("sum", "stream"),
    "order": ("token-channel",),
    "rank": (2, 4, 8, 16, 64),
    "token_rank": (2, 8),
    "mixer_norm": (True,),
    "pool": ("cls", "cls+mean"),
    "share_mixers": (True,),
    "init_scale": (0.1, 0.3, 3.0),
    "dropout": (0.1, 0.2, 0.4),
    "mixup": (0.2, 0.4),
    "lr": (1e-3, 1e-2),
    "weight_decay": (0.0, 0.1, 0.5),
    "epochs": (60,),
    "warmup_epochs": (1.0,),
    "batch_size": (16, 64),
    "label_smoothing": (0.0, 0.2),
}
"""Fields and what else they could be, one at a time."""


def _label(name: str, value: object) -> str:
    return f"{name}: {str(value).lower() if isinstance(value, bool) else value}"


VARIANTS: Final[Mapping[str, Changes]] = {
    "default": {},
    **{_label(name, value): {name: value} for name in _CHOICES for value in _CHOICES[name]},
    **{
        f"{_label('lr', lr)} + {_label('weight_decay', decay)}": {"lr": lr, "weight_decay": decay}
        for lr, decay in product(_CHOICES["lr"], _CHOICES["weight_decay"])
    },
    **{f"taps: {t}": _taps(t) for t in ("last", "last:2", "every:6", "every:4", "every:2", "all")},
    "taps: 8+11": {"taps": "8,11"},
}
"""What is changed, by name; the first is what the others are compared with.

Taps are blocks of the backbone, not places in a store.
"""


@program
def main(argv: list[str]) -> int:
    """Train every variant or find it, print the tables, and publish them; returns the exit code."""
    options = _options(argv)
    tasks = named(options.tasks, tuple(DATA), "--tasks")
    stored = resolve_taps(options.taps, BLOCKS)
    wanted = variants(options.only, options.combine)
    trained, left_out = trainable(wanted, stored)
    for name in left_out:
        note(f"{name}: left out, its taps are not in a store of --taps {options.taps}")
    rows = []
    for task in tasks:
        store = extracted(task, options).store
        for name, changes in trained.items():
            base = {"taps": based_on(stored), "epochs": options.epochs}
            rows.append(measure(task, store, name, {**base, **changes}, options))
            note(line(rows[-1]))
    told = markdown(rows)
    note(told)
    attach("ablation.md", f"{told}\n".encode())
    asked = {name: getattr(options, name) for name in ("img_size", "taps", "epochs", "seeds")}
    results = [asdict(row) for row in rows]
    publish("ablation", argv, {**asked, "left_out": left_out, "results": results})
    return 0


def variants(only: str | None, combine: Sequence[str]) -> dict[str, Changes]:
    """The default, what was named or all, and one variant for each combination.

    Raises:
        UsageError: a name is unknown, or a combination gives one field two values.

    Example:
        >>> variants("rank: 2", ["pool: cls, dropout: 0.1"])["pool: cls + dropout: 0.1"]
        {'pool': 'cls', 'dropout': 0.1}
    """
    known = tuple(VARIANTS)
    names = known if only is None else ("default", *named(only, known, "--only"))
    found = {name: VARIANTS[name] for name in names}
    for text in combine:
        parts = named(text, known, "--combine")
        changes: Changes = {}
        for part in parts:
            twice = [name for name in VARIANTS[part] if name in changes]
            if twice:
                raise UsageError("--combine", f"{text!r} gives {twice[0]} twice", "give it once")
            changes.update(VARIANTS[part])
        found[" + ".join(parts)] = changes
    return found


def trainable(
    wanted: Mapping[str, Changes], stored: tuple[int, ...]
) -> tuple[dict[str, Changes], list[str]]:
    """The variants whose taps are stored, and the names of the others."""
    found, left_out = {}, []
    for name, changes in wanted.items():
        taps = map(int, changes.get("taps", based_on(stored)).split(","))
        if set(taps) <= set(stored):
            found[name] = changes
        else:
            left_out.append(name)
    return found, left_out


def based_on(stored: tuple[int, ...]) -> str:
    """Taps of the default: the usual ones where they are stored, else all that are."""
    return ",".join(map(str, USUAL if set(USUAL) <= set(stored) else stored))


def measure(
    task: str, store: Path, name: str, changes: Changes, options: argparse.Namespace
) -> Row:
    """Train one variant with every seed, or find it; a run that diverges has no accuracy."""
    folder = options.out / "ablation" / store.stem
    run = f"{_file_name(name)}-{changes['epochs']}epochs"
    given = {"store": store, "overwrite": options.fresh, **changes}
    ended = [
        _unless_it_diverges(AdaptConfig(out=folder / f"{run}-seed{seed}", seed=seed, **given))
        for seed in range(options.seeds)
    ]
    found = [run for run in ended if run is not None]
    reports = [report for report, _ in found]
    losses = [report.metrics["val"]["loss"] for report in reports]
    return Row(
        task=task,
        variant=name,
        val_by_seed=tuple(_top1(run, "val") for run in ended),
        test_by_seed=tuple(_top1(run, "test") for run in ended),
        val_loss=statistics.fmean(losses) if losses else None,
        trainable=max((report.parameters["trainable"] for report in reports), default=0),
        seconds=statistics.fmean([report.timing["seconds"] for report in reports] or [0.0]),
        diverged=tuple(seed for seed, run in enumerate(ended) if run is None),
        commits=tuple(sorted({commit for _, commit in found})),
    )


def _unless_it_diverges(config: AdaptConfig) -> tuple[AdaptReport, str] | None:
    try:
        return train_or_find(config)
    except InputError as error:
        if "not finite" not in str(error):
            raise
        note(f"{config.out}: {error}")
        return None


def _top1(run: tuple[AdaptReport, str] | None, split: str) -> float:
    return 0.0 if run is None else float(run[0].metrics[split]["top1"])


def _options(argv: list[str]) -> argparse.Namespace:
    """Parse the flags."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks ablation")
    parser.add_argument("--tasks", default=",".join(DATA))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=AdaptConfig().epochs, help="of the default")
    parser.add_argument("--img-size", type=int, default=112, help="a multiple of 14")
    parser.add_argument("--taps", default="every:3", help="of the stores")
    parser.add_argument("--only", help="variants by commas, beside the default; all by default")
    help_text = "variants by commas that are changed together; may be given several times"
    parser.add_argument("--combine", action="append", default=[], help=help_text)
    add_places(parser)
    return parser.parse_args(argv)


def _file_name(name: str) -> str:
    """A variant's name without what a folder's should not have.

    Example:
        >>> _file_name("pool: mean + lr: 0.01")
        'pool-mean+lr-0.01'
    """
    return re.sub(r"[^a-z0-9._+-]+", "-", name.replace(" + ", "+").lower()).strip("-")
