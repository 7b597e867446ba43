"""``losa evaluate --dataset``: a run measured on raw media, streamed through the backbone once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from losa.adapt.checkpoint import AdaptorCard, load_card
from losa.adapt.metrics import MetricSums
from losa.adapt.predictions import Predictions
from losa.adapt.scoresheet import Evaluation
from losa.adapt.viewmean import mean_of
from losa.errors import InputError, MismatchError
from losa.extract.datasets import Dataset, load_dataset
from losa.extract.decode import DecodePool
from losa.extract.extraction import ExtractEvent
from losa.features import Sample
from losa.live.backbone import LivePipeline, Workers, decode_workers
from losa.store.listing import listing_digest

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LiveRequest:
    """A run, and the raw split to measure it on.

    ``is_mirrored`` scores the mean of what is said of each image and of its mirror image.
    """

    run: Path
    dataset: str
    data_dir: Path
    split: str
    weights: str | None = None
    batch_size: int = 64
    device: str = "auto"
    num_workers: Workers = "auto"
    is_mirrored: bool = False


def evaluate_dataset(
    request: LiveRequest, *, progress: Callable[[ExtractEvent], None]
) -> Evaluation:
    """A run on a data set's split; samples without pixels or features count as wrong.

    Raises:
        MismatchError: the data set's classes are not the run's.
        InputError: samples have no label, or several.
        LosaError: the run, the weights or the data set do not fit.
    """
    card = load_card(request.run)
    if card.task != "classes":
        what = f"predicts {card.task}, and raw media are scored by one class a sample"
        raise MismatchError(request.run, what, "extract the split and give --store")
    dataset = _dataset_of(request, card)
    pipeline = LivePipeline(request.run, request.weights, request.device)
    samples = dataset.splits[request.split]
    size = min(request.batch_size, len(samples))
    groups = [samples[start : start + size] for start in range(0, len(samples), size)]
    places = [[dataset.media(sample) for sample in group] for group in groups]
    sums, predictions = (
        MetricSums(len(dataset.classes)),
        _predictions_of(dataset, samples),
    )
    done = 0
    workers = decode_workers(request.num_workers, len(groups))
    with DecodePool(pipeline.preprocessing, workers=workers) as pool:
        for batch, group in zip(pool.batches(places, pad_to=size), groups, strict=True):
            labels = torch.tensor([sample.label for sample in group])
            readable = torch.ones(len(group), dtype=torch.bool)
            readable[[failure.position for failure in batch.failures]] = False
            logits = _logits(pipeline, batch.pixels, request)[: len(group)]
            readable &= logits.isfinite().all(1)
            sums.add(logits[readable], labels[readable])
            sums.add_skipped(labels[~readable])
            predictions.add(done + np.flatnonzero(readable.numpy()), logits[readable])
            done += len(group)
            progress(ExtractEvent(done, len(samples), card.spec.sample_bytes, "evaluate"))
    facts = {
        "run": str(request.run),
        "dataset": dataset.name,
        "split": request.split,
        "views": "flip" if request.is_mirrored else "clean",
        # The adaptor's, as with --store: beside a live backbone it computes in float32.
        "amp_dtype": "none",
        "backbone_amp_dtype": pipeline.compute.amp_dtype,
    }
    return Evaluation(facts, sums, predictions, dataset.classes)


def _predictions_of(dataset: Dataset, samples: Sequence[Sample]) -> Predictions:
    labels = np.array([sample.label for sample in samples], dtype=np.int64)
    return Predictions(samples, np.arange(len(samples)), labels, dataset.classes)


def _logits(
    pipeline: LivePipeline, pixels: UInt8[np.ndarray, "b ... h w 3"], request: LiveRequest
) -> Float[Tensor, "b y"]:
    """Logits of images, or of the mean probabilities of them and their mirror images."""
    logits = pipeline.logits(pixels)
    if not request.is_mirrored:
        return logits
    return mean_of([logits, pipeline.logits(np.ascontiguousarray(pixels[..., ::-1, :]))])


def _dataset_of(request: LiveRequest, card: AdaptorCard) -> Dataset:
    """The data set, split by the seed that the run's store was extracted with."""
    dataset = load_dataset(
        request.dataset,
        request.data_dir,
        splits=(request.split,),
        seed=card.order_seed,
        is_clips="clip" in card.preprocessing,
    )
    if dataset.classes != card.classes:
        raise MismatchError(
            request.dataset,
            f"its {len(dataset.classes)} classes are not the run's {len(card.classes)}",
            "give a data set with the classes the run was trained on",
        )
    samples = dataset.splits[request.split]
    if any(sample.label < 0 for sample in samples):
        many = any(sample.labels is not None for sample in samples)
        what = f"{request.split} has samples {'with several labels' if many else 'without a label'}"
        todo = "give a split with one label a sample; losa predict needs none"
        raise InputError(request.dataset, what, todo)
    _warn_of_other_samples(request, card, samples)
    return dataset


def _warn_of_other_samples(
    request: LiveRequest, card: AdaptorCard, samples: Sequence[Sample]
) -> None:
    known = card.listings.get(request.split)
    if known is not None and known != listing_digest(samples):
        log.warning(
            "%s: %s is another set of samples than the %s of the run's store, and may hold images "
            "that the run was trained on",
            request.dataset,
            request.split,
            request.split,
        )
