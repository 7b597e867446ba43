"""``losa adapt --live``: the side network trains beside the frozen backbone, without a cache.

Order, statistics, dtype and record are those of ``losa extract`` followed by ``losa adapt``; every
epoch runs the backbone again.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from losa.adapt.partition import Part
from losa.adapt.progress import Progress
from losa.adapt.report import AdaptReport
from losa.adapt.ring import FeatureBatch, RingOptions
from losa.adapt.rundir import finished_run
from losa.adapt.source import FeatureSource, RowReader
from losa.adapt.targets import read_targets
from losa.adapt.task import is_of_several
from losa.adapt.train import adapt_on, used_taps
from losa.config import AdaptConfig, ExtractConfig, LiveConfig
from losa.device import resolve_compute
from losa.errors import InputError, UsageError
from losa.extract.decode import DecodedBatch
from losa.extract.extraction import decode_pool
from losa.extract.fitting import out_of_memory
from losa.extract.media import Media
from losa.extract.planning import gather_inputs
from losa.features import FeatureSpec, Regime
from losa.live.source import TODO_FIT, LiveListing, LivePlanes, LiveRows, LiveSource

log = logging.getLogger(__name__)

TODO_READ = "mend or remove it, or use --on-error skip"


def adapt_live(config: AdaptConfig, *, progress: Progress | None = None) -> AdaptReport:
    """Train the adaptor of ``config`` on features that the backbone of ``config.live`` computes.

    Raises:
        UsageError: something is asked for that only a store has.
        SkippedError: more samples cannot be read than allowed.
        LosaError: as ``losa extract`` and ``losa adapt`` do.
    """
    assert config.live is not None
    if config.taps != "all" or config.read != "auto":
        flag = "--read" if config.taps == "all" else "taps"
        raise UsageError(flag, "is about a store", "leave it away; live.taps is the backbone's")
    inputs = gather_inputs(extraction_of(config), is_written=False)
    listing = LiveListing(inputs)
    found = _finished(config, listing)
    if found is not None:
        return found
    source = LiveSource(inputs, listing)

    def batches(
        _: FeatureSource,
        taps: tuple[int, ...],
        options: RingOptions,
        parts: Sequence[Part],
        regime: Regime,
    ) -> LiveBatches:
        del parts, regime  # nothing is kept, and nothing is read
        return LiveBatches(source, taps, options)

    return adapt_on(source, config, progress=progress, batches=batches)


def _finished(config: AdaptConfig, listing: LiveListing) -> AdaptReport | None:
    """The report of a run that is finished: nothing is calibrated in order to find it."""
    compute = resolve_compute(config.device, config.amp_dtype)
    config = config.model_copy(update={"amp_dtype": compute.amp_dtype})
    if config.targets is not None:
        targets = read_targets(config.targets)
        task, digest = targets.kind, targets.digest
    else:
        listed = listing.inputs.dataset.splits.values()
        task, digest = "labels" if any(map(is_of_several, listed)) else "classes", ""
    taps = used_taps(config, listing.plan.spec.taps)
    report = finished_run(config, taps, listing.store_id, task, digest)
    if report is not None:
        log.info("the finished run is there already")
    return report


def extraction_of(config: AdaptConfig) -> ExtractConfig:
    """The extraction that would have cached what a live training computes.

    A step's samples are a batch of the backbone; seed, device and autocast are the training's.
    """
    assert isinstance(config.live, LiveConfig)
    return ExtractConfig(
        **config.live.model_dump(),
        seed=config.reading_seed,
        device=config.device,
        amp_dtype=config.amp_dtype,
        batch_size=config.batch_size,
    )


class LiveBatches:
    """Batches of a live source: decoded ahead by processes, computed when they are asked for.

    Args:
        source: rows and their media.
        taps: those that the adaptor sees.
        options: size of a batch, and the device.
    """

    def __init__(self, source: LiveSource, taps: tuple[int, ...], options: RingOptions) -> None:
        calibration = source.calibration(taps)
        self._source = source
        self._options = options
        self._spec = source.spec.with_taps(taps)
        self._planes = source.planes(taps)
        self._exponents = calibration.exponent
        self._quantiser = None
        if calibration.quantiser is not None:
            self._quantiser = torch.tensor(calibration.quantiser, device=options.device)
        self._pool = decode_pool(source.inputs)
        self._current: Generator[FeatureBatch, None, None] | None = None

    @property
    def spec(self) -> FeatureSpec:
        """The features that are computed."""
        return self._spec

    @property
    def options(self) -> RingOptions:
        """Sizes and the device."""
        return self._options

    @property
    def exponents(self) -> tuple[int, ...]:
        """Power of two of each tap, for decoding."""
        return self._exponents

    @property
    def quantiser(self) -> Float32[Tensor, "k 2 d"] | None:
        """Mean and scale of each channel, of int8 alone."""
        return self._quantiser

    def batches(
        self, split: RowReader, order: Iterator[Int64[np.ndarray, "b"]]
    ) -> Generator[FeatureBatch, None, None]:
        """Batches of ``split`` for each array of rows; ends the batches asked for before."""
        self._end()
        self._current = self._computed(split, order)
        return self._current

    def close(self) -> None:
        """End what is decoded ahead, and the processes that do it."""
        self.__exit__(None, None, None)

    def __enter__(self) -> LiveBatches:
        self._pool.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()
        self._pool.__exit__(kind, error, trace)

    def _end(self) -> None:
        if self._current is not None:
            self._current.close()
            self._current = None

    def _computed(
        self, split: RowReader, order: Iterator[Int64[np.ndarray, "b"]]
    ) -> Generator[FeatureBatch, None, None]:
        ahead: deque[Int64[np.ndarray, Any]] = deque()
        check = _FitCheck(split, self._planes)

        def groups() -> Iterator[list[Media]]:
            for rows in order:
                ahead.append(rows)
                yield [self._source.media(split, row) for row in rows.tolist()]

        # Padded, as extraction pads: what a row becomes does not depend on the batch's size.
        for decoded in self._pool.batches(groups(), pad_to=self._options.batch_size):
            rows = ahead.popleft()
            _refuse_failures(split, rows, decoded)
            yield from check.passed(self._begun(split, rows, decoded.pixels))
        yield from check.passed(None)

    def _begun(
        self,
        split: RowReader,
        rows: Int64[np.ndarray, "b"],
        pixels: UInt8[np.ndarray, "n ... h w 3"],
    ) -> _Begun:
        device = self._options.device
        labels = torch.from_numpy(split.labels[rows].astype(np.int64))
        with out_of_memory(self._planes.backbone, self._options.batch_size):
            there = _moved(torch.from_numpy(pixels), device)
            found = self._planes(there, len(rows))
        batch = FeatureBatch(found.values, _moved(labels, device), rows, found.scales)
        if device.type != "cuda":
            return _Begun(batch, there, found, found.largest, None)
        largest = torch.empty(found.largest.shape, dtype=found.largest.dtype, pin_memory=True)
        largest.copy_(found.largest, non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's stubs
        copied.record(torch.cuda.current_stream(device))
        return _Begun(batch, there, found, largest, copied)


@dataclass(frozen=True, eq=False)
class _Begun:
    """A batch that is being computed, and what its rows are judged by: ``largest``, on the host."""

    batch: FeatureBatch
    pixels: UInt8[Tensor, "n ... h w 3"]
    rows: LiveRows
    largest: Float[Tensor, "k b"]
    copied: torch.cuda.Event | None


class _FitCheck:
    """Mends features that are not finite or do not fit, and refuses those that stay so.

    On CUDA a batch is judged when the next one has been begun: the host never waits for a device
    that has nothing to do.
    """

    def __init__(self, split: RowReader, planes: LivePlanes) -> None:
        self._split = split
        self._planes = planes
        self._held: _Begun | None = None

    def passed(self, begun: _Begun | None) -> Iterator[FeatureBatch]:
        """Take in another batch, or the end of them; gives those that are known to fit.

        Raises:
            InputError: a sample's features do not fit.
        """
        held, self._held = self._held, begun
        if held is not None:
            yield self._judged(held)
        if begun is not None and begun.copied is None:
            self._held = None
            yield self._judged(begun)

    def _judged(self, begun: _Begun) -> FeatureBatch:
        if begun.copied is not None:
            begun.copied.synchronize()
        fits = begun.largest.isfinite().numpy()
        if not fits.all():
            self._planes.mend(begun.pixels, begun.rows, fits)
        misfit = self._planes.misfit(fits)
        if misfit is not None:
            position, what = misfit
            raise InputError(_path(self._split, int(begun.batch.rows[position])), what, TODO_FIT)
        return begun.batch


def _refuse_failures(split: RowReader, rows: Int64[np.ndarray, "b"], decoded: DecodedBatch) -> None:
    for failure in decoded.failures:
        raise InputError(_path(split, int(rows[failure.position])), failure.message, TODO_READ)


def _path(split: RowReader, row: int) -> str:
    return split.samples[int(split.source_index[row])].path


def _moved(values: Tensor, device: torch.device) -> Tensor:
    """Values on a device; on CUDA the host does not wait."""
    if device.type != "cuda":
        return values
    return values.pin_memory().to(device, non_blocking=True)
