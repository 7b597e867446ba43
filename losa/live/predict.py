"""``losa predict``: classes and probabilities of raw images, and the cache held against them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from losa.adapt.evaluate import logits_of_rows
from losa.device import AmpName, resolve_compute
from losa.errors import InputError
from losa.extract.decode import DecodePool
from losa.extract.images import EXTENSIONS
from losa.live.backbone import LivePipeline
from losa.store import Store, open_store
from losa.store.writer import OK_STATUS


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """What to classify with which run; ``store`` asks for the comparison with cached features."""

    run: Path
    paths: tuple[Path, ...]
    weights: str | None = None
    store: Path | None = None
    top: int = 5
    batch_size: int = 32
    device: str = "auto"
    amp_dtype: AmpName = "auto"


def predict(request: PredictRequest) -> dict[str, Any]:
    """Classify images; every path gets its classes, or the reason why it has none.

    With a store, the live logits of images it lists are compared with those of its cached features.

    Raises:
        LosaError: the run, the weights or the store do not fit, or there is no image.
    """
    images = list(_images(request.paths))
    pipeline = LivePipeline(
        request.run, request.weights, resolve_compute(request.device, request.amp_dtype)
    )
    logits, failures = _live_logits(pipeline, images, request.batch_size)
    predictions = [
        {"path": str(path), "error": failures[number]}
        if number in failures
        else {"path": str(path), "top": _top(logits[number], pipeline.card.classes, request.top)}
        for number, path in enumerate(images)
    ]
    result: dict[str, Any] = {"run": str(request.run), "predictions": predictions}
    if request.store is not None:
        readable = {
            path: logits[number] for number, path in enumerate(images) if number not in failures
        }
        result["cache_check"] = _cache_check(pipeline, open_store(request.store), readable)
    return result


def _images(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            found = sorted(item for item in path.rglob("*") if item.suffix.lower() in EXTENSIONS)
            if not found:
                raise InputError(path, "holds no images", "give image files or their folder")
            yield from found
        elif not path.exists():
            raise InputError(path, "does not exist", "give image files or their folder")
        else:
            yield path


def _live_logits(
    pipeline: LivePipeline, images: Sequence[Path], size: int
) -> tuple[Float[Tensor, "b y"], dict[int, str]]:
    groups = [list(images[start : start + size]) for start in range(0, len(images), size)]
    parts, failures = [], {}
    with DecodePool(pipeline.preprocessing, workers=0) as pool:
        for number, batch in enumerate(pool.batches(groups, pad_to=size)):
            parts.append(pipeline.logits(batch.pixels))
            for failure in batch.failures:
                failures[number * size + failure.position] = failure.message
    return torch.cat(parts), failures


def _top(logits: Float[Tensor, "y"], classes: Sequence[str], count: int) -> list[dict[str, Any]]:
    probabilities = logits.double().softmax(0)
    best = probabilities.topk(min(count, len(classes)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [{"class": classes[index], "probability": round(value, 6)} for index, value in pairs]


def _cache_check(
    pipeline: LivePipeline, store: Store, live: Mapping[Path, Tensor]
) -> dict[str, Any]:
    """Largest difference between live and cached logits over the images that the store lists."""
    compared, largest, same = 0, 0.0, True
    for split in store.splits:
        places = _rows_of(store, split, list(live))
        if not places:
            continue
        rows = np.array(list(places.values()), dtype=np.int64)
        cached = logits_of_rows(pipeline.adaptor, store, split, rows)
        found = torch.stack([live[path] for path in places])
        largest = max(largest, float((found - cached.cpu()).abs().max()))
        same = same and bool((found.argmax(1) == cached.cpu().argmax(1)).all())
        compared += len(rows)
    return {"compared": compared, "max_abs_difference": largest, "same_classes": same}


def _rows_of(store: Store, split: str, paths: Sequence[Path]) -> dict[Path, int]:
    """Rows of a split whose sample's path is the end of one of the paths."""
    reader = store.split(split)
    readable = reader.status == OK_STATUS
    row_of = {
        reader.samples[index].path: row
        for row, index in enumerate(reader.source_index.tolist())
        if readable[row]
    }
    places = {}
    for path in paths:
        parts = path.resolve().parts
        ends = ("/".join(parts[start:]) for start in range(1, len(parts)))
        row = next((row_of[end] for end in ends if end in row_of), None)
        if row is not None:
            places[path] = row
    return places
