"""``losa verify --recompute``: extract some rows again, and compare them with what is stored.

Checksums tell that a record is what was written. This tells that what was written are the features
of these files through these weights.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from losa.device import Compute, resolve_compute
from losa.errors import UsageError
from losa.extract.augment import check_rules, view_of
from losa.extract.backbones import Backbone, rebuild_backbone
from losa.extract.datasets import Dataset
from losa.extract.decode import DecodedBatch, DecodePool
from losa.extract.media import Media
from losa.extract.nonfinite import AsStored
from losa.extract.origin import find_again
from losa.features import Sample
from losa.precision import decode
from losa.store import Plan, Store, open_store
from losa.store.sealed import OK_STATUS

log = logging.getLogger(__name__)

# Relative L2 distances that arithmetic alone may leave between two computations of a plane, ten
# times or so what it does. float32: sums in another order, for another batch or number of threads.
# float16 and bfloat16: a value that lies between two stored ones may be rounded to the other, by up
# to 1 in 2^11 and 1 in 2^8. int8: the same with steps of a token's largest value over 127, about 1
# in 100 of its length. Other weights, or another resize, are far beyond all of them.
TOLERANCES: Final = {"float32": 1e-5, "float16": 1e-2, "bfloat16": 1e-2, "int8": 3e-2}
MOST_NAMED: Final = 20


@dataclass(frozen=True, slots=True)
class RecomputeRequest:
    """Which store, how many of its rows by which seed, and what to compute them from.

    ``images`` is the folder that the samples lie below (:func:`losa.extract.origin.find_again`);
    without it, the data set is looked for under its own name.
    """

    store: Path
    rows: int
    images: Path | None
    weights: str | None
    seed: int
    device: str


@dataclass(frozen=True, slots=True)
class ChosenRow:
    """One row to extract again."""

    split: str
    row: int
    sample: Sample
    view: int = 0


@dataclass(slots=True)
class _Findings:
    """Distances of the rows that could be compared, ``[row, tap]``, and what became of the rest."""

    taps: tuple[int, ...]
    tolerance: float
    distances: list[list[float]] = field(default_factory=list)
    compared: list[ChosenRow] = field(default_factory=list)
    unread: list[tuple[ChosenRow, str]] = field(default_factory=list)


def recompute_rows(request: RecomputeRequest) -> dict[str, Any]:
    """Extract random readable rows of a store again; says how far they are from what it holds.

    Distances are relative L2, in true units, by row and tap. A row fails if one of its taps is
    beyond the tolerance, or if its file cannot be read any more; those are counted apart too.

    Raises:
        StoreError: the store is not sealed, or a record is damaged.
        MismatchError: weights or preprocessing are not the store's, or its views are augmented by
            rules of another losa; the field is named.
        UsageError: the files are not found.
        LosaError: they are found, and damaged or out of reach.
    """
    store = open_store(request.store)
    plan = store.plan
    rows = choose_rows(store, request.rows, request.seed)
    dataset = find_again(plan, request.images, [row.sample.path for row in rows])
    compute = resolve_compute(request.device, plan.numerics.autocast or "none")  # type: ignore[arg-type]  # checked there
    if compute.device.type != plan.numerics.device:
        log.info("the store was made on %s: last bits may differ", plan.numerics.device)
    backbone = rebuild_backbone(plan, request.weights, compute, whose="store")
    again = _Again(store, backbone, compute)
    findings = _Findings(plan.spec.taps, tolerance_of(plan))
    check_rules(plan.augment)
    paths = [[_media(dataset, plan, row) for row in part] for part in _parts(rows, plan)]
    # Strangers' videos may crash or block their decoder: never that of this process.
    workers = 0 if backbone.preprocessing.clip is None else 1
    with DecodePool(backbone.preprocessing, workers=workers) as pool:
        decoded = pool.batches(paths, pad_to=plan.numerics.batch_size)
        for part, batch in zip(_parts(rows, plan), decoded, strict=True):
            again.compare(part, batch, findings)
    return _summary(findings)


def tolerance_of(plan: Plan) -> float:
    """Largest relative L2 distance that counts as the same: of the store's dtype or of autocast.

    Features computed in bfloat16 are no better than that in a float32 store.
    """
    dtypes = (plan.spec.dtype, plan.numerics.autocast or plan.spec.dtype)
    return max(TOLERANCES[dtype] for dtype in dtypes)


def choose_rows(store: Store, count: int, seed: int) -> list[ChosenRow]:
    """Seeded random rows that hold features, of all splits; all of them if there are fewer."""
    names = sorted(store.splits)
    readable = {name: np.flatnonzero(store.split(name).status == OK_STATUS) for name in names}
    ends = np.cumsum([len(readable[name]) for name in names])
    chosen = np.random.default_rng(seed).choice(ends[-1], min(count, ends[-1]), replace=False)
    found = []
    for number in sorted(chosen.tolist()):
        name = names[int(np.searchsorted(ends, number, side="right"))]
        row = int(readable[name][number - ends[names.index(name)]])  # from the end of its split
        reader = store.split(name)
        sample = reader.samples[reader.source_index[row]]
        found.append(ChosenRow(name, row, sample, int(reader.views[row])))
    return found


def relative_l2(
    found: Float[Tensor, "k b l d"], stored: Float[Tensor, "k b l d"]
) -> Float[Tensor, "b k"]:
    """Length of the difference over the length of what is stored, by row and tap."""
    difference = (found.double() - stored.double()).flatten(2).norm(dim=2)
    length = stored.double().flatten(2).norm(dim=2)
    ratio: Tensor = difference / length.clamp_min(torch.finfo(torch.float64).tiny)
    return ratio.T


class _Again:
    """Computes rows anew and reads the same ones from the store."""

    def __init__(self, store: Store, backbone: Backbone, compute: Compute) -> None:
        self._store = store
        self._device = compute.device
        calibration = store.calibration(store.spec.taps)
        self._exponents = calibration.exponent
        self._quantiser = calibration.quantiser
        given = store.spec.dtype, calibration.exponent, calibration.quantiser
        self._planes = AsStored(backbone, *given)

    @torch.inference_mode()
    def compare(self, part: Sequence[ChosenRow], batch: DecodedBatch, findings: _Findings) -> None:
        """Compare one batch, and add what was found."""
        reasons = {failure.position: failure.message for failure in batch.failures}
        planes, fits = self._planes(torch.from_numpy(batch.pixels).to(self._device))
        found = torch.stack([plane[: len(part)].cpu() for plane in planes])
        distances = relative_l2(found, self._stored(part)).tolist()
        for position, row in enumerate(part):
            if position in reasons:
                findings.unread.append((row, reasons[position]))
            elif not fits[:, position].all():
                what = f"its features do not fit {self._store.spec.dtype} now"
                findings.unread.append((row, what))
            elif not all(map(math.isfinite, distances[position])):
                findings.unread.append((row, "what is stored of it is not finite"))
            else:
                findings.compared.append(row)
                findings.distances.append(distances[position])

    def _stored(self, part: Sequence[ChosenRow]) -> Float[Tensor, "k b l d"]:
        """The same rows as the store has them."""
        spec = self._store.spec
        taps, tokens, channels = spec.shape
        stored = torch.empty(taps, len(part), tokens, channels)
        for position, item in enumerate(part):
            reader = self._store.split(item.split)
            raw = np.empty((taps, 1, tokens, channels), reader.raw_dtype)
            scales = np.empty((taps, 1, tokens), np.float16) if spec.scale_bytes else None
            reader.read_into(np.array([item.row]), spec.taps, raw, scales)
            stored[:, position] = self._decoded(raw, scales)[:, 0]
        return stored

    def _decoded(self, raw: np.ndarray, scales: np.ndarray | None) -> Float[Tensor, "k 1 l d"]:
        bits = raw.view(np.int16) if raw.dtype == np.uint16 else raw
        return decode(
            torch.from_numpy(bits),
            self._store.spec.dtype,
            self._exponents,
            scales=None if scales is None else torch.from_numpy(scales),
            quantiser=None if self._quantiser is None else torch.tensor(self._quantiser),
        )


def _parts(rows: Sequence[ChosenRow], plan: Plan) -> Iterator[Sequence[ChosenRow]]:
    """Rows in batches of the size that the store was extracted with."""
    size = plan.numerics.batch_size
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


def _media(dataset: Dataset, plan: Plan, row: ChosenRow) -> Media:
    place = dataset.pieces.get(row.sample.path) or Media(dataset.root / _safe(row.sample.path))
    augment = plan.augment_in(row.split)
    is_trained_on = plan.is_trained_beside_test_views(row.split)
    return view_of(augment, place, row.sample.key, row.view, is_trained_on=is_trained_on)


def _safe(path: str) -> str:
    """A sample's path, unless it leads out of the folder that samples lie below."""
    plain = PurePosixPath(path)
    if plain.is_absolute() or ".." in plain.parts:
        raise UsageError("--images", f"{path!r} leads out of the folder", "is this store yours?")
    return path


def _summary(findings: _Findings) -> dict[str, Any]:
    tolerance, distances = findings.tolerance, np.array(findings.distances)
    far = [
        (item, int(np.argmax(values)), max(values))
        for item, values in zip(findings.compared, findings.distances, strict=True)
        if max(values) > tolerance
    ]
    far.sort(key=lambda found: -found[2])
    named = [_named(item, reason=reason) for item, reason in findings.unread]
    named += [_named(item, tap=findings.taps[tap], distance=value) for item, tap, value in far]
    worst = None
    if findings.compared:
        row, tap = np.unravel_index(np.argmax(distances), distances.shape)
        value = float(distances[row, tap])
        worst = _named(findings.compared[int(row)], tap=findings.taps[int(tap)], distance=value)
    return {
        "rows": len(findings.compared) + len(findings.unread),
        "failed": len(named),
        "not_compared": len(findings.unread),
        "within": not named,
        "tolerance": tolerance,
        "worst": worst["relative_l2"] if worst else None,
        "worst_row": worst or (named[0] if named else None),
        "failures": named[:MOST_NAMED],
        "taps": {
            str(tap): {"worst": float(values.max()), "median": float(np.median(values))}
            for tap, values in zip(findings.taps, distances.T, strict=False)
        },
    }


def _named(item: ChosenRow, **more: Any) -> dict[str, Any]:
    facts = {"split": item.split, "row": item.row, "key": item.sample.key, "path": item.sample.path}
    if item.view:
        facts["view"] = item.view
    if "distance" in more:
        return {**facts, "tap": more["tap"], "relative_l2": more["distance"]}
    return {**facts, "reason": more["reason"]}
