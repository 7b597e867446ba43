"""Scores of an adaptor on a store's split, streamed, and what it predicts for each sample."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from losa.adapt.adaptor import Adaptor
from losa.adapt.checkpoint import AdaptorCard, load_adaptor
from losa.adapt.loader import FeatureLoader
from losa.adapt.metrics import MetricSums
from losa.adapt.partition import Part, check_labels, clean_rows, held_out, part_of
from losa.adapt.report import read_report
from losa.adapt.ring import FeatureBatch, RingOptions, ring_on
from losa.adapt.rundir import REPORT_NAME, load_config
from losa.adapt.source import FeatureSource
from losa.config import AdaptConfig
from losa.device import Compute, resolve_compute
from losa.errors import MismatchError, StoreError, UsageError
from losa.store.files import write_atomic
from losa.store.opening import open_source
from losa.store.plan import differing_fields

PRINTED_CLASSES: Final = 100
"""A confusion matrix of more classes is too much for a result of one line."""

EachBatch = Callable[[FeatureBatch, Float[Tensor, "b y"]], None]


def evaluate(
    run_dir: Path,
    store_path: Path | None = None,
    split: str = "test",
    *,
    device: str = "auto",
    batch_size: int = 64,
    predictions: Path | None = None,
) -> dict[str, Any]:
    """Metrics of a run's best weights on a split of a store, the run's own unless told otherwise.

    Samples are looked at as they are: of several views, the clean one counts. Another store will do
    if its features came about in the same way. Where the run held rows out of
    train, and the store's train is the one it did so from, ``train`` means the others, and ``val``
    of a store without one means those. Autocast is the run's
    own, but for a run of a CUDA device on a CPU, which is evaluated without; ``amp_dtype`` of the
    result says which it was.

    Args:
        run_dir: the folder that ``losa adapt`` wrote.
        store_path: the store, or ``None`` for the one the run was trained on.
        split: name of the split.
        device: where to compute.
        batch_size: samples of a batch.
        predictions: CSV file to write, one line a listed sample: key, label, predicted class and
            its probability; the last two are empty where the sample could not be read.

    Raises:
        StoreError: the run or the store is missing or damaged, or has no such split.
        MismatchError: the store's backbone, preprocessing, taps or classes are not the run's.
        UsageError: there is no folder for the predictions.
        InputError: samples of the split have no label, or several.
    """
    if predictions is not None:
        _check_place(predictions)
    adaptor, card = load_adaptor(run_dir)
    config = load_config(run_dir)
    store = open_source(store_path) if store_path is not None else _own_store(config)
    check_same_features(card, store)
    compute = _compute_of_run(run_dir, config, device)
    part = _part_of_run(store, split, config, card)
    sums = MetricSums(len(card.classes), compute.device)
    table = _Predictions(part) if predictions is not None else None
    with ring_on(store, card.spec.taps, RingOptions(batch_size, compute.device)) as ring:
        loader = FeatureLoader(part.split, part.rows, ring)
        module = adaptor.to(compute.device)
        for _ in score_part(module, loader, part, compute, sums, table.add if table else None):
            pass
    if table is not None and predictions is not None:
        write_atomic(predictions, table.csv(card.classes))
    confusion = sums.confusion()
    is_small = confusion is not None and len(confusion) <= PRINTED_CLASSES
    return {
        "run": str(run_dir),
        "store_id": store.store_id,
        "split": split,
        "amp_dtype": compute.amp_dtype,
        **sums.metrics().to_json(),
        **({"confusion": confusion.tolist()} if confusion is not None and is_small else {}),
    }


def score_part(
    module: nn.Module,
    loader: FeatureLoader,
    part: Part,
    compute: Compute,
    sums: MetricSums,
    each: EachBatch | None = None,
) -> Iterator[int]:
    """Add a part to ``sums``, batch by batch; yields the number of batches done after each."""
    module.eval()
    sums.add_skipped(torch.from_numpy(part.skipped_labels))
    for step, batch in enumerate(loader.epoch(0)):
        with torch.inference_mode(), compute.autocast():
            logits = module(loader.decode(batch)).float()
        sums.add(logits, batch.labels)
        if each is not None:
            each(batch, logits)
        yield step + 1


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
                parts.append(module(loader.decode(batch)).float().cpu())
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
                "preprocessing": card.preprocessing,
                "classes": list(card.classes),
            },
            {
                "features": theirs,
                "backbone": store.plan.backbone,
                "preprocessing": store.plan.preprocessing,
                "classes": list(store.classes),
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


def _check_place(predictions: Path) -> None:
    """Refuse before the work what could not be written after it."""
    if not predictions.parent.is_dir():
        what = f"the folder {predictions.parent} does not exist"
        raise UsageError("--predictions", what, "make it first")
    if predictions.is_dir():
        raise UsageError("--predictions", f"{predictions} is a folder", "name a file")


def _own_store(config: AdaptConfig) -> FeatureSource:
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
    if split in ("train", "val") and not is_own_val and _was_held_out_of(store, card):
        train = store.split("train")
        learnt, held = held_out(store, config.val_fraction, config.seed)
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
    )


class _Predictions:
    """What was predicted for each readable row of a part, kept as two numbers a row."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._found: dict[int, tuple[int, float]] = {}

    def add(self, batch: FeatureBatch, logits: Float[Tensor, "b y"]) -> None:
        """Take one batch."""
        best = logits.softmax(1).max(1)
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        self._found.update(zip(batch.rows.tolist(), pairs, strict=True))

    def csv(self, classes: tuple[str, ...]) -> bytes:
        """The table in the data set's order."""
        split = self._part.split
        listed = np.concatenate([self._part.rows, self._part.skipped])
        order = listed[np.argsort(split.source_index[listed], kind="stable")]
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["key", "label", "predicted", "probability"])
        for row in order.tolist():
            sample = split.samples[int(split.source_index[row])]
            predicted, probability = self._found.get(row, (None, None))
            name = "" if predicted is None else classes[predicted]
            share = "" if probability is None else f"{probability:.6f}"
            table.writerow([sample.key, classes[sample.label], name, share])
        return text.getvalue().encode()
