"""``losa predict``: classes and probabilities of raw images, and the cache held against them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from losa.adapt.checkpoint import AdaptorCard, load_card
from losa.adapt.evaluate import check_same_features, logits_of_rows
from losa.adapt.partition import clean_rows
from losa.adapt.source import FeatureSource
from losa.adapt.targets import Kind
from losa.errors import InputError
from losa.extract.decode import DecodePool
from losa.extract.folders import CLIPS, IMAGES, FileKind
from losa.live.backbone import LivePipeline, Workers, decode_workers
from losa.store.opening import open_source
from losa.store.sealed import OK_STATUS

EXACT_TOLERANCE: Final = 1e-4
HALF_TOLERANCE: Final = 1e-2
"""Largest differences of live and cached logits, of float32 stores and of all others."""


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
    num_workers: Workers = "auto"


def predict(request: PredictRequest) -> dict[str, Any]:
    """Classify images, or clips; every path gets its classes, or the reason why it has none.

    With a store, the live logits of images it lists are compared with those of its cached features:
    the files must be those that were extracted, for they are known by the end of their paths.

    Raises:
        MismatchError: the store's features are not such as the run was trained on.
        LosaError: the run, the weights or the store do not fit, or there is no image.
    """
    is_clips = "clip" in load_card(request.run).preprocessing
    images = list(_images(request.paths, CLIPS if is_clips else IMAGES))
    store = open_source(request.store) if request.store is not None else None
    if store is not None:
        check_same_features(load_card(request.run), store)
    pipeline = LivePipeline(request.run, request.weights, request.device)
    logits, failures = _live_logits(pipeline, images, request)
    predictions = [
        {"path": str(path), "error": failures[number]}
        if number in failures
        else {"path": str(path), **_said(logits[number], pipeline.card, request.top)}
        for number, path in enumerate(images)
    ]
    result: dict[str, Any] = {"run": str(request.run), "predictions": predictions}
    if store is not None:
        readable = {
            path: logits[number] for number, path in enumerate(images) if number not in failures
        }
        result["cache_check"] = _cache_check(pipeline, store, readable)
    return result


def _images(paths: Sequence[Path], kind: FileKind) -> Iterator[Path]:
    todo = f"give files of {kind.noun} or their folder"
    for path in paths:
        if path.is_dir():
            each = path.rglob("*")
            found = sorted(item for item in each if item.suffix.lower() in kind.extensions)
            if not found:
                raise InputError(path, f"holds no {kind.noun}", todo)
            yield from found
        elif not path.exists():
            raise InputError(path, "does not exist", todo)
        else:
            yield path


def _live_logits(
    pipeline: LivePipeline, images: Sequence[Path], request: PredictRequest
) -> tuple[Float[Tensor, "b y"], dict[int, str]]:
    size = min(request.batch_size, len(images))
    groups = [list(images[start : start + size]) for start in range(0, len(images), size)]
    parts, failures = [], {}
    dtype = pipeline.card.spec.dtype
    workers = decode_workers(request.num_workers, len(groups))
    with DecodePool(pipeline.preprocessing, workers=workers) as pool:
        for number, batch in enumerate(pool.batches(groups, pad_to=size)):
            parts.append(pipeline.logits(batch.pixels))
            for position in (~parts[-1].isfinite().all(1)).nonzero()[:, 0].tolist():
                failures[number * size + position] = f"features do not fit {dtype}"
            for failure in batch.failures:
                failures[number * size + failure.position] = failure.message
    return torch.cat(parts), failures


def table_rows(predictions: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Path, class or name, and probability or number: what a table shows of predictions.

    Example:
        >>> list(table_rows([{"path": "a.png", "numbers": {"age": 31.4159}}]))
        [('a.png', 'age', '31.42')]
    """
    for item in predictions:
        if "error" in item:
            yield item["path"], item["error"], ""
        for best in item.get("top", ()):
            yield item["path"], best["class"], f"{best['probability']:.3f}"
        for name, number in item.get("numbers", {}).items():
            yield item["path"], name, f"{number:.4g}"


def _said(logits: Float[Tensor, "y"], card: AdaptorCard, count: int) -> dict[str, Any]:
    """What a run says of one image: its likeliest classes, all of its labels, or its numbers."""
    if card.task == "numbers":
        each = zip(card.classes, card.scale, logits.double().tolist(), strict=True)
        return {"numbers": {name: mean + std * found for name, (mean, std), found in each}}
    is_one = card.task == "classes"
    probabilities = logits.double().softmax(0) if is_one else logits.double().sigmoid()
    best = probabilities.topk(min(count, len(card.classes)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    top = [{"class": card.classes[index], "probability": round(value, 6)} for index, value in pairs]
    if is_one:
        return {"top": top}
    found = zip(card.classes, probabilities.tolist(), strict=True)
    return {"top": top, "probabilities": {name: round(value, 6) for name, value in found}}


def _is_same(live: Float[Tensor, "b y"], cached: Float[Tensor, "b y"], task: Kind) -> bool:
    """Whether both say the same classes; numbers have none to differ in."""
    if task == "classes":
        return bool((live.argmax(1) == cached.argmax(1)).all())
    return task == "numbers" or bool(((live > 0) == (cached > 0)).all())


def _cache_check(
    pipeline: LivePipeline, store: FeatureSource, live: Mapping[Path, Tensor]
) -> dict[str, Any]:
    """Largest difference between live and cached logits over the images that the store lists."""
    differences, same = [], True
    for split, places in _places_of(store, list(live)).items():
        rows = np.array(list(places.values()), dtype=np.int64)
        cached = logits_of_rows(pipeline.adaptor, store, split, rows)
        found = torch.stack([live[path] for path in places])
        differences += (found - cached).abs().amax(1).tolist()
        same = same and _is_same(found, cached, pipeline.card.task)
    return {
        "compared": len(differences),
        "max_abs_difference": max(differences, default=None),
        "same_classes": same if differences else None,
        "tolerance": _tolerance(pipeline, store),
    }


def _tolerance(pipeline: LivePipeline, store: FeatureSource) -> float:
    """Difference of logits that the features' own rounding explains."""
    is_exact = {pipeline.card.spec.dtype, store.spec.dtype} == {"float32"}
    return EXACT_TOLERANCE if is_exact else HALF_TOLERANCE


def _places_of(store: FeatureSource, paths: Sequence[Path]) -> dict[str, dict[Path, int]]:
    """By split, the readable row of each path that ends with a whole sample's path.

    The longest sample's path wins; where several rows have it, none does.
    """
    ends = {path: _ends(path) for path in paths}
    wanted = {end for path in paths for end in ends[path]}
    rows_of: dict[str, list[tuple[str, int]]] = {}
    for split in store.splits:
        reader = store.split(split)
        for row in clean_rows(reader).tolist():
            name = reader.samples[int(reader.source_index[row])].path
            if name in wanted:
                rows_of.setdefault(name, []).append((split, row))
    places: dict[str, dict[Path, int]] = {}
    for path in paths:
        found = next((rows_of[end] for end in ends[path] if end in rows_of), [])
        if len(found) == 1 and store.split(found[0][0]).status[found[0][1]] == OK_STATUS:
            split, row = found[0]
            places.setdefault(split, {})[path] = row
    return places


def _ends(path: Path) -> list[str]:
    """What a path ends with, the longest first."""
    parts = path.resolve().parts
    return ["/".join(parts[start:]) for start in range(1, len(parts))]
