"""Scores of an adaptor on a store's split, streamed, and what it predicts for each sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from losa.adapt.adaptor import Adaptor
from losa.adapt.checkpoint import AdaptorCard, load_adaptor
from losa.adapt.loader import FeatureLoader
from losa.adapt.metrics import MetricSums
from losa.adapt.objective import Sums, objective_of
from losa.adapt.partition import Part, check_labels, clean_rows, held_out, part_of
from losa.adapt.predictions import Predictions, check_places
from losa.adapt.report import read_report
from losa.adapt.ring import FeatureBatch, RingOptions, ring_on
from losa.adapt.rundir import REPORT_NAME, load_config
from losa.adapt.scoresheet import Evaluation, PlainEvaluation
from losa.adapt.source import READABLE, FeatureSource
from losa.adapt.targets import Kind
from losa.adapt.task import Task, kind_in, targets_digest, task_in, with_task
from losa.adapt.taskpredictions import TaskPredictions
from losa.adapt.viewmean import ViewMean
from losa.config import AdaptConfig
from losa.device import Compute, resolve_compute
from losa.errors import MismatchError, StoreError, UsageError
from losa.store.files import write_atomic
from losa.store.opening import open_source
from losa.store.plan import differing_fields

EachBatch = Callable[[FeatureBatch, Float[Tensor, "b y"]], None]


@dataclass(frozen=True, slots=True)
class EvaluateRequest:
    """A run, and what to measure it on: the split of a store, its own unless told otherwise.

    Of a sample that the store has several views of, the ``clean`` one counts, or the ``average`` of
    what is said of all: of probabilities, or of the ``logits`` themselves. ``targets`` is a file of
    targets, the run's own unless told otherwise; ``is_listed`` keeps what was predicted for each
    sample.
    """

    run: Path
    store: Path | None = None
    split: str = "test"
    device: str = "auto"
    batch_size: int = 64
    views: Literal["clean", "average", "logits"] = "clean"
    targets: Path | None = None
    is_listed: bool = False


def evaluate(
    run_dir: Path,
    store_path: Path | None = None,
    split: str = "test",
    *,
    device: str = "auto",
    batch_size: int = 64,
    predictions: Path | None = None,
) -> dict[str, Any]:
    """Metrics of a run on a split of a store as plain values; see :func:`evaluate_store`.

    Args:
        run_dir: the folder that ``losa adapt`` wrote.
        store_path: the store, or ``None`` for the one the run was trained on.
        split: name of the split.
        device: where to compute.
        batch_size: samples of a batch.
        predictions: CSV file to write, one line a listed sample: key, label, predicted class and
            its probability; the last two are empty where the sample could not be read.

    Raises:
        UsageError: there is no folder for the predictions.
        LosaError: as :func:`evaluate_store` does.
    """
    check_places(predictions, None)
    request = EvaluateRequest(run_dir, store_path, split, device, batch_size)
    found = evaluate_store(replace(request, is_listed=predictions is not None))
    if predictions is not None and found.predictions is not None:
        write_atomic(predictions, found.predictions.csv())
    return found.result


def evaluate_store(request: EvaluateRequest) -> Evaluation | PlainEvaluation:
    """A run's best weights on a split of a store.

    Another store than the run's will do if its features came about in the same way. Where the run
    held rows out of train, and the store's train is the one it did so from, ``train`` means the
    others, and ``val`` of a store without one means those. Autocast is the run's own, but for a
    run of a CUDA device on a CPU, which is evaluated without; ``amp_dtype`` of the result says
    which it was.

    Raises:
        StoreError: the run or the store is missing or damaged, or has no such split.
        MismatchError: the store's backbone, preprocessing, taps or classes are not the run's.
        UsageError: views are to be averaged, and the split has one of each sample.
        InputError: samples of the split have no label; a file of targets is not as it should be.
    """
    adaptor, card = load_adaptor(request.run)
    config = load_config(request.run)
    store = open_source(request.store) if request.store is not None else _own_store(config)
    store = _with_task_of_run(store, request.targets or config.targets, card)
    check_same_features(card, store)
    compute = _compute_of_run(request.run, config, request.device)
    part = _part_of_run(store, request.split, config, card)
    sums = objective_of(store, config, card.scale, compute.device).sums()
    predictions = _predictions_of(part, card, task_in(store), compute, is_listed=request.is_listed)
    scoring = _Scoring(part, sums, compute, predictions)
    rows = part.rows if request.views == "clean" else views_of(part, request.split)
    with ring_on(store, card.spec.taps, RingOptions(request.batch_size, compute.device)) as ring:
        loader = FeatureLoader(part.split, rows, ring)
        module = adaptor.to(compute.device)
        if request.views == "clean":
            scoring.clean(module, loader)
        else:
            # Numbers are averaged as they are, and so logits are to be.
            kind = "numbers" if request.views == "logits" else card.task
            scoring.averaged(module, loader, kind)
    facts = {
        "run": str(request.run),
        "store_id": store.store_id,
        "split": request.split,
        "views": request.views,
        "amp_dtype": compute.amp_dtype,
    }
    if isinstance(sums, MetricSums) and isinstance(predictions, Predictions):
        return Evaluation(facts, sums, predictions, card.classes)
    assert not isinstance(predictions, Predictions)
    return PlainEvaluation(facts, sums, predictions)


def _with_task_of_run(
    store: FeatureSource, targets: Path | None, card: AdaptorCard
) -> FeatureSource:
    """A store with the targets that a run predicts, of which some may be missing.

    Raises:
        MismatchError: its labels, or those of the file, are of another kind.
    """
    found = with_task(store, targets, card.classes)
    kind = kind_in(found)
    if kind != card.task:
        subject = "--store" if targets is None else targets
        what = f"has {kind}, and the run predicts {card.task}"
        raise MismatchError(subject, what, "give --targets of the run's kind")
    return found


def _predictions_of(
    part: Part, card: AdaptorCard, task: Task | None, compute: Compute, *, is_listed: bool
) -> Predictions | TaskPredictions | None:
    """Where predictions go; of classes they are kept always, for reliability needs them."""
    split = part.split
    rows = np.concatenate([part.rows, part.skipped])
    listed, labels = split.source_index[rows], split.labels[rows].astype(np.int64)
    if task is None or task.kind == "classes":
        return Predictions(split.samples, listed, labels, card.classes, compute.device)
    if not is_listed:
        return None
    return TaskPredictions(split.samples, listed, labels, task=task, scale=card.scale)


class _Scoring:
    """The sums and predictions of one part, by its clean views or by the average of all."""

    def __init__(
        self,
        part: Part,
        sums: Sums,
        compute: Compute,
        predictions: Predictions | TaskPredictions | None,
    ) -> None:
        self._part = part
        self._sums = sums
        self._compute = compute
        self._predictions = predictions

    def clean(self, module: nn.Module, loader: FeatureLoader) -> None:
        """Score the rows of the part."""
        source = self._part.split.source_index

        def each(batch: FeatureBatch, logits: Float[Tensor, "b y"]) -> None:
            self._keep(source[batch.rows], logits)

        for _ in score_part(module, loader, self._part, self._compute, self._sums, each):
            pass

    def averaged(self, module: nn.Module, loader: FeatureLoader, kind: Kind) -> None:
        """Score the samples of the part by all of their views, which the loader has in order."""
        split = self._part.split
        mean = ViewMean(split.source_index[loader.rows], kind)
        for batch, logits in _each_logits(module, loader, self._compute):
            source, means, labels = mean.add(logits, batch.labels)
            self._sums.add(means, labels)
            self._keep(source, means)
        every = np.concatenate([self._part.rows, self._part.skipped])
        unread = every[~np.isin(split.source_index[every], split.source_index[loader.rows])]
        self._sums.add_skipped(torch.from_numpy(split.labels[unread].astype(np.int64)))

    def _keep(self, source: Int64[np.ndarray, "..."], logits: Float[Tensor, "n y"]) -> None:
        if self._predictions is not None:
            self._predictions.add(source, logits)


def views_of(part: Part, name: str) -> Int64[np.ndarray, "n"]:
    """All readable rows of a part's samples, the views of a sample side by side.

    Raises:
        UsageError: the split has one view of each sample.
    """
    split = part.split
    if not split.views.any():
        what = f"{name} has one view of each sample"
        raise UsageError("--views", what, "give clean, or flip with --dataset")
    samples = split.source_index[np.concatenate([part.rows, part.skipped])]
    rows = np.flatnonzero(np.isin(split.source_index, samples) & (split.status == READABLE))
    order = np.lexsort((split.views[rows], split.source_index[rows]))
    grouped: Int64[np.ndarray, "n"] = rows[order]
    return grouped


def score_part(
    module: nn.Module,
    loader: FeatureLoader,
    part: Part,
    compute: Compute,
    sums: Sums,
    each: EachBatch | None = None,
) -> Iterator[int]:
    """Add a part to ``sums``, batch by batch; yields the number of batches done after each."""
    sums.add_skipped(torch.from_numpy(part.skipped_labels))
    for step, (batch, logits) in enumerate(_each_logits(module, loader, compute)):
        sums.add(logits, batch.labels)
        if each is not None:
            each(batch, logits)
        yield step + 1


def _each_logits(
    module: nn.Module, loader: FeatureLoader, compute: Compute
) -> Iterator[tuple[FeatureBatch, Float[Tensor, "b y"]]]:
    module.eval()
    for batch in loader.epoch(0):
        with torch.inference_mode(), compute.autocast():
            logits = module(loader.planes(batch)).float()
        yield batch, logits


def logits_of_rows(
    module: Adaptor, store: FeatureSource, split: str, rows: Int64[np.ndarray, "b"]
) -> Float[Tensor, "b y"]:
    """Logits of the cached rows, in the order asked, on the CPU; computed where the module is.

    Raises:
        StoreError: the store has no such split, or is damaged.
        InputError: a row lies outside the split.
    """
    device = next(module.parameters()).device
    module.eval()
    options = RingOptions(min(len(rows), 64) or 1, device, prefetch=1)
    parts: list[Tensor] = []
    with ring_on(store, module.spec.taps, options) as ring:
        loader = FeatureLoader(store.split(split), rows, ring)
        for batch in loader.epoch(0):
            with torch.inference_mode():
                parts.append(module(loader.planes(batch)).float().cpu())
    return torch.cat(parts)


def check_same_features(card: AdaptorCard, store: FeatureSource) -> None:
    """Make sure that a store's features mean to an adaptor what it was trained on.

    The dtype may differ: it changes precision, not meaning.

    Raises:
        MismatchError: backbone, preprocessing, grid, taps or classes differ; the fields are named.
    """
    ours, theirs = card.spec.to_json(), store.spec.to_json()
    missing = set(card.spec.taps) - set(store.spec.taps)
    for spec in (ours, theirs):
        del spec["dtype"], spec["taps"]
    fields = list(
        differing_fields(
            {
                "features": ours,
                "backbone": card.backbone,
                "preprocessing": _of_one_view(card.preprocessing),
                "classes": [] if card.targets else list(card.classes),
            },
            {
                "features": theirs,
                "backbone": store.plan.backbone,
                "preprocessing": _of_one_view(store.plan.preprocessing),
                # Of a file of targets the classes are its own.
                "classes": [] if card.targets else list(store.classes),
            },
        )
    )
    if missing:
        fields.append(f"taps: {list(card.spec.taps)} / {list(store.spec.taps)}")
    if fields:
        raise MismatchError(
            "--store",
            "has other features than the run's (run / store): " + ", ".join(fields),
            "give a store extracted in the same way, or train on this one",
        )


def _of_one_view(preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """What pixels went through, without how many test views there are of a clip."""
    found = dict(preprocessing)
    if isinstance(found.get("clip"), dict):
        views = ("clips", "crops")
        found["clip"] = {name: item for name, item in found["clip"].items() if name not in views}
    return found


def _own_store(config: AdaptConfig) -> FeatureSource:
    if config.live is not None:
        what = "is needed: the run was trained live, on no store"
        raise UsageError("--dataset", what, "give raw media, or --store")
    try:
        return open_source(config.store, regime=config.read)
    except StoreError as error:
        if config.store.exists():
            raise
        raise StoreError(config.store, error.what, "give --store: where the store is now") from None


def _compute_of_run(run_dir: Path, config: AdaptConfig, device: str) -> Compute:
    compute = resolve_compute(device, config.amp_dtype)
    if compute.device.type == "cpu" and not _is_of_cpu(run_dir, config):
        return resolve_compute(device, "none")
    return compute


def _is_of_cpu(run_dir: Path, config: AdaptConfig) -> bool:
    """Whether the run was trained on a CPU; an unfinished one does not say what ``auto`` was."""
    path = run_dir / REPORT_NAME
    if path.exists():
        return bool(read_report(path).environment.get("device") == "cpu")
    return config.device == "cpu"


def _part_of_run(store: FeatureSource, split: str, config: AdaptConfig, card: AdaptorCard) -> Part:
    is_own_val = split == "val" and "val" in store.splits
    is_held_out = config.val_fraction > 0 and _was_held_out_of(store, card)
    if split in ("train", "val") and not is_own_val and is_held_out:
        train = store.split("train")
        learnt, held = held_out(store, config.val_fraction, config.reading_seed)
        return part_of(train, held if split == "val" else np.intersect1d(learnt, clean_rows(train)))
    check_labels(split, store)
    return part_of(store.split(split), clean_rows(store.split(split)))


def _was_held_out_of(store: FeatureSource, card: AdaptorCard) -> bool:
    """Whether the run's val was taken from a train of these very rows, in this very order.

    An extended store, and a file of some of its splits, have other identities and the same train.
    """
    train = store.plan.splits.get("train")
    return (
        train is not None
        and "val" not in card.listings
        and train.listing == card.listings.get("train")
        and store.plan.order_seed == card.order_seed
        and targets_digest(store) == card.targets
    )
