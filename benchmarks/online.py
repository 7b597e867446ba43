"""Question: how far is tuning the backbone itself ahead of training beside it, on the same tasks?

Method: full fine-tuning, LoRA, BitFit and deep prompts on the very backbone, pictures and splits of
``python -m benchmarks tasks``, decoded once as extraction decodes them, without augmentation, and
with the side network's head. AdamW, warm-up over a tenth of the steps and cosine. Val chooses the
epoch of every training and, with seed 0, the learning rate among the method's three; the other
seeds train at that. Test chooses nothing. Every training is one file, written once and named by a
digest of all that its result depends on: what was killed goes on at the first training that has
none, and what is asked otherwise is another file.

Reported: test top-1, mean and standard error over seeds, trainable parameters (head included),
seconds of an epoch, and the commits at which the trainings were done. Table on stderr; one JSON
document as the last line of stdout and in ``benchmarks/results/online.json``.

    python -m benchmarks online
    python -m benchmarks online --tasks location --methods lora,full --seeds 1 --epochs 20
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import tasks
from benchmarks.onlinenets import LORA_RANK, METHODS, PROMPTS
from benchmarks.onlinetrain import SPLITS, Labelled, Recipe, decoded, train
from benchmarks.record import commit, note, publish
from benchmarks.suite import standard_error
from demo.__main__ import prepare
from demo.assets import CACHE
from demo.command import program
from losa.device import Compute, resolve_compute
from losa.errors import MismatchError, UsageError
from losa.extract.backbones import BackboneRequest, build_backbone
from losa.extract.datasets import load_dataset
from losa.extract.vit import ViTBackbone
from losa.store.files import canonical_json, create_once, read_json, sha256
from losa.store.listing import listing_digest


@dataclass(frozen=True, slots=True)
class Result:
    """One method on one task: accuracies in 0..1, seconds of one epoch of training.

    ``commits`` are those of the trainings that chose and made the figures.
    """

    task: str
    method: str
    test_top1: float
    test_error: float | None
    val_top1: float
    trainable: int
    seconds_per_epoch: float
    lr: float
    test_by_seed: tuple[float, ...]
    commits: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Bench:
    """What all trainings of one task share; ``identity`` says what their results depend on."""

    task: str
    backbone: ViTBackbone
    data: Mapping[str, Labelled]
    compute: Compute
    runs: Path
    identity: Mapping[str, Any]

    def trained(self, recipe: Recipe) -> dict[str, Any]:
        """The record of one training: that of an earlier call, or a new one.

        Raises:
            MismatchError: the file there is of another training.
        """
        settings = {**self.identity, **asdict(recipe), **settings_of(recipe.method)}
        digest = sha256(canonical_json(settings))[:8]
        name = f"{recipe.method}-lr{recipe.lr:g}-seed{recipe.seed}"
        folder = self.runs / f"{self.task}-epochs{recipe.epochs}"
        path = folder / f"{name}-{digest}.json"
        if not path.exists():
            began = commit()
            found = train(self.backbone, self.data, recipe, self.compute)
            record = {"settings": settings, "commit": began, **found}
            folder.mkdir(parents=True, exist_ok=True)
            create_once(path, canonical_json(record), scratch=folder, durable=True)
            note(f"  {self.task} {name}: {_brief(record)}")
        found = read_json(path)
        if found["settings"] != json.loads(canonical_json(settings)):
            what = "is the record of another training"
            raise MismatchError(path, what, "remove it")
        return found

    def measure(self, method: str, options: argparse.Namespace) -> Result:
        """Choose a learning rate on val with seed 0, then train it with the other seeds."""
        base = {"method": method, "epochs": options.epochs, "batch_size": options.batch_size}
        rates = options.lrs or METHODS[method].lrs
        first = [self.trained(Recipe(lr=lr, seed=0, **base)) for lr in rates]
        best = max(range(len(rates)), key=lambda number: _on_val(first[number]))
        seeds = range(1, options.seeds)
        others = [self.trained(Recipe(lr=rates[best], seed=seed, **base)) for seed in seeds]
        records = [first[best], *others]
        tests = tuple(float((record["test"] or {"top1": 0.0})["top1"]) for record in records)
        commits = {record.get("commit", "unknown") for record in (*first, *others)}
        return Result(
            task=self.task,
            method=method,
            test_top1=statistics.fmean(tests),
            test_error=standard_error(tests),
            val_top1=statistics.fmean(_on_val(record)[0] for record in records),
            trainable=records[0]["trainable"],
            seconds_per_epoch=statistics.fmean(r["seconds_per_epoch"] for r in records),
            lr=rates[best],
            test_by_seed=tests,
            commits=tuple(sorted(commits)),
        )


@program
def main(argv: list[str]) -> int:
    """Run the trainings that have no record yet; returns the exit code."""
    options = _options(argv)
    results = []
    names = tasks.named(options.tasks, tuple(tasks.DATA), "--tasks")
    methods = tasks.named(options.methods, tuple(METHODS), "--methods")
    options.lrs = _rates(options.lrs)
    for task in names:
        bench = opened(task, options)
        for method in methods:
            results.append(bench.measure(method, options))
            note(line(results[-1]))
    note("\n".join(line(result) for result in results))
    asked = ("epochs", "batch_size", "img_size", "seeds", "amp_dtype")
    details = {name: getattr(options, name) for name in asked}
    known = {name: {"source": METHODS[name].source, **settings_of(name)} for name in methods}
    rows = [asdict(result) for result in results]
    publish("online", argv, {**details, "methods": known, "results": rows})
    return 0


def opened(task: str, options: argparse.Namespace) -> Bench:
    """A task's pictures in memory, and the backbone that every training copies."""
    compute = resolve_compute(options.device, options.amp_dtype)
    with redirect_stdout(sys.stderr):
        folder = tasks.DATA[task](options.cache)
        weights = options.weights or str(prepare(options.cache))
    request = BackboneRequest(
        options.model, weights, options.img_size, taps="last", dtype="float32"
    )
    backbone = build_backbone(request, device=compute.device, amp_dtype=compute.amp)
    assert isinstance(backbone, ViTBackbone)
    dataset = load_dataset(f"folder:{folder}", Path(), splits=SPLITS, seed=0)
    identity = {
        "task": task,
        # The name holds the version of what is rendered, which the listings do not see.
        "pictures": folder.name,
        "weights": backbone.weights_digest,
        "preprocessing": backbone.preprocessing.to_json(),
        "listings": {name: listing_digest(dataset.splits[name]) for name in SPLITS},
        "device": compute.device.type,
        "amp_dtype": compute.amp_dtype,
    }
    data = decoded(dataset, backbone.preprocessing, options.num_workers)
    return Bench(task, backbone, data, compute, options.out, identity)


def settings_of(method: str) -> dict[str, float]:
    """What a method's result depends on beside the recipe.

    Example:
        >>> settings_of("lora"), settings_of("bitfit")
        ({'weight_decay': 0.0001, 'lora_rank': 8}, {'weight_decay': 0.0001})
    """
    own = {"lora": {"lora_rank": LORA_RANK}, "vpt": {"prompts": PROMPTS}}.get(method, {})
    return {"weight_decay": METHODS[method].weight_decay, **own}


def line(result: Result) -> str:
    """One row of the table.

    Example:
        >>> line(Result("digits", "lora", 0.956, 0.002, 0.95, 154378, 20.0, 1e-3, (0.956,)))
        'digits     lora    test 95.60 ± 0.20 %  val 95.00 %     154,378 parameters    20.0 s/epoch'
    """
    error = "-" if result.test_error is None else f"{100 * result.test_error:.2f}"
    return (
        f"{result.task:10} {result.method:7} test {100 * result.test_top1:5.2f} ± {error} %"
        f"  val {100 * result.val_top1:5.2f} %  {result.trainable:10,} parameters"
        f"  {result.seconds_per_epoch:6.1f} s/epoch"
    )


def _options(argv: list[str]) -> argparse.Namespace:
    """Parse the flags."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks online")
    parser.add_argument("--tasks", default=",".join(tasks.DATA))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", type=int, default=3, help="training seeds, 1 or more")
    parser.add_argument("--epochs", type=int, default=30, help="of every training")
    parser.add_argument("--lrs", default="", help="learning rates by commas, not the method's own")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--img-size", type=int, default=112, help="a multiple of 14")
    parser.add_argument("--model", default="dinov2_s")
    parser.add_argument("--weights", default=None, help="default: the demo's, for dinov2_s")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--amp-dtype", default="none", help="none or bfloat16")
    parser.add_argument("--num-workers", type=int, default=1, help="decoding processes")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/online"), help="records of trainings"
    )
    parser.add_argument("--cache", type=Path, default=CACHE)
    return parser.parse_args(argv)


def _rates(text: str) -> tuple[float, ...]:
    """Learning rates by commas.

    Raises:
        UsageError: one is no number.

    Example:
        >>> _rates("1e-4,3e-4"), _rates("")
        ((0.0001, 0.0003), ())
    """
    try:
        return tuple(float(word) for word in text.split(",") if word)
    except ValueError:
        raise UsageError("--lrs", f"{text!r} are no numbers", "give 1e-4,3e-4") from None


def _on_val(record: Mapping[str, Any]) -> tuple[float, float]:
    """What rates are chosen by: val top-1, then the lower val loss; one that diverged is last."""
    val = record["val"]
    return (0.0, float("-inf")) if val is None else (val["top1"], -val["loss"])


def _brief(record: Mapping[str, Any]) -> str:
    if record["val"] is None:
        return "diverged"
    top1: Sequence[float] = [record[split]["top1"] for split in ("val", "test")]
    return f"val {100 * top1[0]:.2f} %, test {100 * top1[1]:.2f} %, {record['seconds']:.0f} s"
