"""``losa scout``: a cheap look at every block of a backbone on a sample of the data.

One forward pass over a few samples, closed-form probes on every block and on sets of them, and the
best set there is room for: terabytes hang on which taps are kept.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from losa.config import ExtractConfig
from losa.errors import InputError, UsageError
from losa.extract.advice import MARGIN
from losa.extract.datasets import Dataset
from losa.extract.extraction import ExtractEvent
from losa.extract.planning import Inputs, gather_inputs
from losa.extract.tokens import parse_tokens
from losa.features import FeatureSpec
from losa.live import scoutplot
from losa.live.backbone import decode_workers
from losa.live.ridge import kernel
from losa.live.scoutfeatures import Gathered, gather, summary_bytes
from losa.live.scoutsample import Scouted, scouted_samples
from losa.live.tapsearch import (
    TapSet,
    Task,
    advise,
    best_of,
    search,
    standard_error,
)
from losa.store.files import write_atomic
from losa.store.plan import VIEWED_SPLIT

CAVEAT: Final = (
    "these probes are linear, on prefix tokens and means over patches: mixing all tokens, as LoSA "
    "does, sees more"
)
MIN_SAMPLES: Final = 20
MAX_SAMPLES: Final = 20_000
"""Kernels of so many samples and 12 blocks are 19 GB; a probe has a few more n x n matrices."""

USUAL_SHARE: Final = 3
"""Of so many blocks one is kept where no budget says otherwise, as ``--taps auto`` keeps about."""

AUTO_BATCH: Final = 32

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ScoutRequest:
    """What would be extracted, how many samples to look at, room for features, and a folder."""

    config: ExtractConfig
    out: Path = Path("scout")
    samples: int = 2000
    budget: int | None = None


@dataclass(frozen=True)
class Look:
    """One evidence: what was kept of each plane, the probes on it, and what a guess would get."""

    name: str
    sets: tuple[TapSet, ...]
    commonest: float


Told = Callable[[ExtractEvent], None]


def scout(request: ScoutRequest, *, progress: Told) -> dict[str, Any]:
    """Look at a sample and advise which taps to keep; writes ``scout.json`` and, perhaps, a plot.

    Raises:
        UsageError: the sample is too small or too large.
        LosaError: the data set or the backbone is not what the configuration says.
    """
    if not MIN_SAMPLES <= request.samples <= MAX_SAMPLES:
        what = f"{request.samples} is not within {MIN_SAMPLES}..{MAX_SAMPLES}"
        raise UsageError("--samples", what, "2000 is usual")
    _make_folder(request.out)
    config = request.config.model_copy(update={"taps": "all", "tokens": "all"})
    inputs = gather_inputs(config, is_written=False)
    chosen = scouted_samples(inputs.dataset, request.samples, config.seed)
    needed = summary_bytes(inputs.backbone, len(chosen.samples))
    kernels = kernel_bytes(inputs.backbone.depth, len(chosen.samples))
    log.info(
        "%d samples to train on, %d held out of %s; %.0f MB of summaries, %.0f MB of kernels",
        *(len(chosen.train), len(chosen.held_out), chosen.held_out_of),
        *(needed / 1e6, kernels / 1e6),
    )
    found = _gathered(inputs, chosen, progress)
    looks = look_at(found, chosen, progress)
    spec = _priced_spec(inputs, request.config)
    rows = _rows(inputs.dataset, request.config.views)
    result = {
        "model": inputs.backbone.name,
        "dataset": inputs.dataset.name,
        "classes": len(chosen.classes),
        "trained": int(found.ok[: len(chosen.train)].sum()),
        "held_out": int(found.ok[len(chosen.train) :].sum()),
        "held_out_of": chosen.held_out_of,
        "seed": config.seed,
        "summary_bytes": needed,
        **judged(looks, spec, rows, request.budget),
    }
    return _written(request.out, result)


def look_at(found: Gathered, chosen: Scouted, progress: Told) -> tuple[Look, ...]:
    """Probes by each evidence: prefix tokens with the mean patch, and means of coarse cells."""
    labels = torch.tensor([sample.label for sample in chosen.samples])[found.ok]
    trained = int(found.ok[: len(chosen.train)].sum())
    if trained < MIN_SAMPLES // 2 or trained == len(labels):
        what = f"only {len(labels)} samples could be read"
        raise InputError("--dataset", what, "mend it, or give more --samples")
    commonest = float(labels.bincount().max()) / len(labels)
    first_cell = found.summary.first_cell
    parts = {"summary": slice(0, first_cell), "cells": slice(first_cell, None)}
    looks = []
    for name, tokens in parts.items():

        def told(done: int, total: int, name: str = name) -> None:
            progress(ExtractEvent(done, total, 0, f"probes on {name}", "probes"))

        task = Task(_kernels(found.values[:, found.ok, tokens], trained), labels, trained)
        looks.append(Look(name, tuple(search(task, progress=told)), commonest))
        del task  # or the next one's kernels would lie beside these
    return tuple(looks)


def judged(
    looks: Sequence[Look], spec: FeatureSpec, rows: int, budget: int | None
) -> dict[str, Any]:
    """The advice by the better evidence, and every set with its accuracy and its bytes.

    Args:
        looks: probes by each evidence.
        spec: features at all taps, as they would be stored.
        rows: of the whole store.
        budget: bytes that there is room for; ``None``: those of a third of the blocks.
    """
    look = max(looks, key=lambda one: best_of(one.sets).top1)
    tap_bytes = rows * spec.with_taps((0,)).sample_bytes
    depth = len(spec.taps)
    room = -(-depth // USUAL_SHARE) if budget is None else int(budget / (tap_bytes * MARGIN))
    advice = advise(look.sets, look.commonest, room)
    chosen = advice.chosen
    return {
        "evidence": look.name,
        "criterion": advice.criterion,
        "commonest_class": round(look.commonest, 6),
        "advice": {
            **_set_json(chosen, tap_bytes),
            "share": round(len(chosen.taps) / depth, 4),
            "flag": f"--taps {chosen.name}",
            "fits_budget": None if budget is None else len(chosen.taps) <= room,
            "behind": round(advice.behind, 6),
            "tolerance": round(advice.tolerance, 6),
            "is_within": advice.is_within,
        },
        "fewest": _set_json(advice.fewest, tap_bytes),
        "best": _set_json(advice.best, tap_bytes),
        "all_bytes": tap_bytes * len(spec.taps),
        "rows": rows,
        "budget": budget,
        "features": spec.to_json(),
        "looks": {one.name: [_set_json(item, tap_bytes) for item in one.sets] for one in looks},
        "caveat": CAVEAT,
    }


def _set_json(one: TapSet, tap_bytes: int) -> dict[str, Any]:
    """A set as plain JSON values: accuracies in 0..1, bytes of the whole store."""
    hits, held_out = one.probe.hits, one.probe.hits[one.probe.trained :]
    return {
        "name": one.name,
        "taps": list(one.taps),
        "top1": round(one.top1, 6),
        "error": round(standard_error(hits), 6),
        "held_out_top1": round(float(held_out.double().mean()), 6),
        "held_out_error": round(standard_error(held_out), 6),
        "squared_error": round(float(one.probe.errors.mean()), 6),
        "penalty": one.probe.penalty,
        "bytes": tap_bytes * len(one.taps),
    }


def _kernels(values: Float[Tensor, "k n l d"], trained: int) -> Float[Tensor, "k n n"]:
    """The kernel of each tap; they are too large to be held twice."""
    samples = values.shape[1]
    found = torch.empty(len(values), samples, samples)
    for into, plane in zip(found, values, strict=True):
        into.copy_(kernel(plane.flatten(1), trained))
    return found


def kernel_bytes(depth: int, samples: int) -> int:
    """Bytes that the float32 kernels of all blocks take.

    Example:
        >>> kernel_bytes(12, MAX_SAMPLES)
        19200000000
    """
    return 4 * depth * samples**2


def _gathered(inputs: Inputs, chosen: Scouted, progress: Told) -> Gathered:
    """The summaries of the samples, in batches of the size asked for."""
    asked, clip = inputs.config.batch_size, inputs.backbone.preprocessing.clip
    usual = max(1, AUTO_BATCH // (1 if clip is None else clip.kept))
    size = usual if asked == "auto" else asked
    workers = decode_workers(inputs.config.num_workers, -(-len(chosen.samples) // size))
    return gather(
        inputs.backbone,
        inputs.dataset,
        chosen.samples,
        batch_size=size,
        workers=workers,
        progress=progress,
    )


def _priced_spec(inputs: Inputs, asked: ExtractConfig) -> FeatureSpec:
    """The features at all taps, with the tokens and the dtype that were asked for.

    Raises:
        UsageError: the token policy cannot be meant.
    """
    spec = inputs.backbone.spec
    grid, _ = parse_tokens(asked.tokens, spec.grid)
    return replace(spec, grid=grid)


def _rows(dataset: Dataset, views: int) -> int:
    """Rows of the whole store: only train has more than one view."""
    return sum(
        len(samples) * (views if split == VIEWED_SPLIT else 1)
        for split, samples in dataset.splits.items()
    )


def _make_folder(out: Path) -> None:
    """The folder of the results, before anything is computed for it."""
    if out.exists() and not out.is_dir():
        raise UsageError("--out", f"{out} is no folder", "name a folder, there or not")
    out.mkdir(parents=True, exist_ok=True)


def _written(out: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Write the plot, as far as that can be drawn, and the result that names it."""
    picture = scoutplot.picture(result)
    plot = None
    if picture is not None:
        plot = out / "scout.png"
        write_atomic(plot, picture)
    result = {**result, "out": str(out), "plot": None if plot is None else str(plot)}
    text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
    write_atomic(out / "scout.json", text.encode())
    return result
