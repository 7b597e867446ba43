"""A data set and a frozen backbone seen as a store of features, of which nothing is ever stored.

Rows, their order, their statistics and their dtype are those of the store that ``losa extract``
would write with the same settings; only the planes are computed when a batch asks for them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Int32, Int64, Shaped, UInt8
from torch import Tensor

from losa.adapt.source import READABLE, RowReader
from losa.errors import InputError, SkippedError, StoreError
from losa.extract.augment import view_of
from losa.extract.backbones import Backbone
from losa.extract.decode import DecodePool
from losa.extract.extraction import Extraction, decode_pool
from losa.extract.media import Media
from losa.extract.nonfinite import alone
from losa.extract.planning import Inputs, calibrated, wanted_plan
from losa.features import FeatureSpec, Sample
from losa.precision import Encoded, encode, magnitudes
from losa.store import Calibration, Plan
from losa.store.files import canonical_json, sha256
from losa.store.order import EpochOrder, row_places
from losa.store.plan import VIEWED_SPLIT

log = logging.getLogger(__name__)

SCAN_ROWS = 64
"""Images, or frames of clips, that are decoded at a time when unreadable ones are looked for."""

TODO_FIT = "use --store-dtype bfloat16 or float32, another --amp-dtype, or check the weights"

PixelBatch = UInt8[Tensor, "n ... h w 3"]

RAW = {"float16": "float16", "int8": "int8", "float32": "float32", "bfloat16": "uint16"}


@dataclass(frozen=True, eq=False)
class LiveRows:
    """Rows as a store would hold them, and what :func:`losa.precision.magnitudes` says of each."""

    values: Shaped[Tensor, "k b l d"]
    scales: Float16[Tensor, "k b l"] | None
    largest: Float[Tensor, "k b"]


class LivePlanes:
    """Pixels to what a store of the plan would hold of them.

    Args:
        backbone: read at the taps that are wanted.
        plan: of the same taps: dtype and exponents.
        quantiser: mean and scale of each channel, of int8 alone.
    """

    def __init__(self, backbone: Backbone, plan: Plan, quantiser: np.ndarray | None) -> None:
        self.backbone = backbone
        self._exact = backbone.in_float32()
        self._spec = plan.spec
        self._exponents = plan.exponents
        self._quantisers: list[Tensor | None] = [None] * len(plan.spec.taps)
        if quantiser is not None:
            self._quantisers = list(torch.tensor(quantiser, device=backbone.device))

    def __call__(self, pixels: PixelBatch, count: int) -> LiveRows:
        """The first ``count`` rows of a padded batch."""
        planes = self.backbone(pixels)
        encoded = [self._encoded(tap, plane) for tap, plane in enumerate(planes)]
        largest = [
            magnitudes(*each)[:count] for each in zip(planes, encoded, self._exponents, strict=True)
        ]
        scales = [one.scales[:count] for one in encoded if one.scales is not None]
        return LiveRows(
            torch.stack([one.values[:count] for one in encoded]),
            torch.stack(scales) if scales else None,
            torch.stack(largest),
        )

    def mend(self, pixels: PixelBatch, rows: LiveRows, fits: Bool[np.ndarray, "k b"]) -> None:
        """Compute what does not fit once more, alone and in float32, as extraction does.

        Args:
            pixels: that the rows were computed from.
            rows: whose values become those that fit.
            fits: of each row and tap; what is mended becomes true.
        """
        if self._exact is None:
            return
        for position in np.flatnonzero(~fits.all(0)).tolist():
            again = alone(self._exact, pixels, position)
            for tap in np.flatnonzero(~fits[:, position]).tolist():
                plane = again[tap][None]
                one = self._encoded(tap, plane)
                rows.values[tap, position] = one.values[0]
                if rows.scales is not None and one.scales is not None:
                    rows.scales[tap, position] = one.scales[0]
                largest = magnitudes(plane, one, self._exponents[tap])
                fits[tap, position] = bool(largest.isfinite())

    def misfit(self, fits: Bool[np.ndarray, "k b"]) -> tuple[int, str] | None:
        """The position of the first row that does not fit, and what is wrong with it."""
        if fits.all():
            return None
        position = int(np.argmax(~fits.all(0)))
        tap = self._spec.taps[int(np.argmax(~fits[:, position]))]
        return position, f"its features at tap {tap} do not fit {self._spec.dtype}"

    def _encoded(self, tap: int, plane: Float[Tensor, "b l d"]) -> Encoded:
        return encode(plane, self._spec.dtype, self._exponents[tap], self._quantisers[tap])


class LiveSplit:
    """The rows of a split as a store would order them.

    Args:
        source: the features that the split is a part of.
        name: of the split.
        status: of each listed sample: readable, or why not.
    """

    def __init__(self, source: LiveSource, name: str, status: UInt8[np.ndarray, "n"]) -> None:
        self._source = source
        self._listed = source.inputs.dataset.splits[name]
        plan = source.plan
        places = row_places(len(self._listed), plan.views_of(name), plan.order_seed, name)
        self._places = places
        self._status: UInt8[np.ndarray, "n"] = status[places.source_index]

    @property
    def rows(self) -> int:
        """Number of rows: views of all samples."""
        return len(self._places.source_index)

    @cached_property
    def labels(self) -> Int32[np.ndarray, "n"]:
        """Class of each row."""
        labels = np.array([sample.label for sample in self._listed], dtype=np.int32)
        found: Int32[np.ndarray, "n"] = labels[self.source_index]
        return found

    @property
    def status(self) -> UInt8[np.ndarray, "n"]:
        """Whether each row can be read, as far as that was looked for."""
        return self._status

    @property
    def source_index(self) -> Int64[np.ndarray, "n"]:
        """Position of each row in the data set's listing."""
        return self._places.source_index

    @cached_property
    def views(self) -> UInt8[np.ndarray, "n"]:
        """Which view of its sample each row is."""
        found: UInt8[np.ndarray, "n"] = self._places.view.astype(np.uint8)
        return found

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The data set's listing."""
        return self._listed

    @property
    def raw_dtype(self) -> np.dtype[np.generic]:
        """What a feature would be on disk."""
        return np.dtype(RAW[self._source.spec.dtype])

    def read_into(
        self,
        rows: Int64[np.ndarray, "b"],
        taps: tuple[int, ...],
        out: Shaped[np.ndarray, "k b l d"],
        scales: Float16[np.ndarray, "k b l"] | None = None,
    ) -> None:
        """Decode and compute some rows here and now, one batch of them; see :class:`LiveBatches`.

        Raises:
            StoreError: a row cannot be read.
            InputError: a row's features do not fit the store's dtype.
        """
        groups = [[self._source.media(self, row) for row in rows.tolist()]]
        rules = self._source.inputs.backbone.preprocessing
        # Videos may crash or block their decoder: never that of this process.
        with DecodePool(rules, workers=0 if rules.clip is None else 1) as pool:
            (batch,) = pool.batches(groups, pad_to=len(rows))
        for failure in batch.failures:
            raise StoreError(groups[0][failure.position].path, failure.message, "mend it")
        planes, pixels = self._source.planes(taps), torch.from_numpy(batch.pixels)
        found = planes(pixels.to(planes.backbone.device), len(rows))
        fits = found.largest.isfinite().cpu().numpy()
        planes.mend(pixels, found, fits)
        misfit = planes.misfit(fits)
        if misfit is not None:
            raise InputError(groups[0][misfit[0]].path, misfit[1], TODO_FIT)
        out[:] = found.values.cpu().numpy().view(self.raw_dtype)
        if scales is not None and found.scales is not None:
            scales[:] = found.scales.cpu().numpy()

    def follow(self, order: EpochOrder | None, taps: tuple[int, ...], start: int) -> None:
        """Nothing to prepare: rows come as they are asked for."""


class LiveListing:
    """What is known of live features before the backbone has run: their plan, and their identity.

    Raises:
        LosaError: as ``losa extract`` does before it loads the backbone.
        SkippedError: more samples cannot be read than ``--max-skip`` allows.
    """

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.statuses = self._scanned()
        self.plan: Plan = wanted_plan(inputs)

    @cached_property
    def store_id(self) -> str:
        """Identity of what is computed: that of the store's plan, marked as live.

        With samples that cannot be read: a training does not go on where others can be.
        """
        live: dict[str, Any] = {"plan": self.plan.digest, "autocast": self.plan.numerics.autocast}
        found = {name: np.flatnonzero(status != READABLE) for name, status in self.statuses.items()}
        unread = {name: rows.tolist() for name, rows in found.items() if len(rows)}
        if unread:
            live["unread"] = unread
        return sha256(canonical_json({"live": live}))

    def _scanned(self) -> Mapping[str, UInt8[np.ndarray, "..."]]:
        """Status of every sample; with ``--on-error skip``, all are decoded once to know it."""
        splits = self.inputs.dataset.splits
        found = {name: np.full(len(listed), READABLE, np.uint8) for name, listed in splits.items()}
        if self.inputs.config.on_error == "fail":
            return found
        with decode_pool(self.inputs) as pool:
            for name, listed in splits.items():
                self._scan(pool, listed, found[name])
        total = sum(map(len, found.values()))
        bad = sum(int((status != READABLE).sum()) for status in found.values())
        if bad:
            log.warning("%d of %d samples cannot be read and are left out", bad, total)
        if bad > self.inputs.config.max_skip * total:
            what = f"{bad} of {total} samples cannot be read, more than --max-skip allows"
            raise SkippedError("--dataset", what, "mend them, or raise --max-skip")
        return found

    def _scan(
        self, pool: DecodePool, listed: tuple[Sample, ...], status: UInt8[np.ndarray, "n"]
    ) -> None:
        media = [self.inputs.dataset.media(sample) for sample in listed]
        clip = self.inputs.backbone.preprocessing.clip
        size = SCAN_ROWS if clip is None else max(1, SCAN_ROWS // clip.kept)
        starts = range(0, len(media), size)
        groups = [media[first : first + size] for first in starts]
        for first, batch in zip(starts, pool.batches(groups, pad_to=size), strict=True):
            for failure in batch.failures:
                status[first + failure.position] = failure.code
                path = self.inputs.dataset.root / Path(listed[first + failure.position].path)
                log.info("%s: %s", path, failure.message)


class LiveSource:
    """Features that are computed anew whenever they are asked for, as a store has them.

    Calibration forwards the same rows as extraction does.

    Args:
        inputs: backbone and data set.
        listing: of the same inputs, if it was made already.

    Raises:
        LosaError: as ``losa extract`` does before it writes a row.
        SkippedError: as :class:`LiveListing` does.
    """

    def __init__(self, inputs: Inputs, listing: LiveListing | None = None) -> None:
        self.inputs = inputs
        self._listing = listing or LiveListing(inputs)
        wanted = self._listing.plan
        log.info("calibration: forwarding up to %d rows", wanted.calibration_rows)
        statistics = Extraction(inputs, inputs.config.store, wanted).calibrate()
        self._arrays = statistics.arrays(wanted.spec.dtype)
        self.plan: Plan = calibrated(wanted, statistics)
        statuses = self._listing.statuses.items()
        self._splits = {name: LiveSplit(self, name, status) for name, status in statuses}

    @property
    def spec(self) -> FeatureSpec:
        """What the features of one sample are."""
        return self.plan.spec

    @property
    def store_id(self) -> str:
        """Identity of what is computed; see :class:`LiveListing`."""
        return self._listing.store_id

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self._splits)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by number."""
        return self.inputs.dataset.classes

    def calibration(self, taps: tuple[int, ...]) -> Calibration:
        """Statistics of each tap's channels."""
        places = [self.spec.taps.index(tap) for tap in taps]
        arrays = {name: values[places] for name, values in self._arrays.items()}
        return Calibration(exponent=self.plan.with_taps(taps).exponents, **arrays)

    def split(self, name: str) -> LiveSplit:
        """The rows of one split.

        Raises:
            StoreError: there is no such split.
        """
        if name not in self._splits:
            have = ", ".join(self._splits)
            raise StoreError("--dataset", f"has no {name} split, only {have}", "name one it has")
        return self._splits[name]

    def media(self, split: RowReader, row: int) -> Media:
        """Where the bytes of a row are, as the view that it is."""
        sample = split.samples[int(split.source_index[row])]
        media = self.inputs.dataset.media(sample)
        # A training's own reader of a split has no name, but it has the split's samples.
        is_viewed = split.samples is self.inputs.dataset.splits.get(VIEWED_SPLIT)
        augment = self.plan.augment if is_viewed else None
        is_trained_on = is_viewed and self.plan.test_views > 1
        view = int(split.views[row])
        return view_of(augment, media, sample.key, view, is_trained_on=is_trained_on)

    def planes(self, taps: tuple[int, ...]) -> LivePlanes:
        """What computes some taps of this source."""
        backbone = self.inputs.backbone.with_taps(taps)
        return LivePlanes(backbone, self.plan.with_taps(taps), self.calibration(taps).quantiser)
