"""``losa adapt --live``: the side network trains beside the frozen backbone, without a cache.

Order, statistics, dtype and record are those of ``losa extract`` followed by ``losa adapt``; every
epoch runs the backbone again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
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
from losa.adapt.source import FeatureSource, RowReader
from losa.adapt.train import adapt_on
from losa.config import AdaptConfig, ExtractConfig, LiveConfig
from losa.errors import InputError, UsageError
from losa.extract.decode import DecodedBatch
from losa.extract.extraction import decode_pool
from losa.extract.fitting import out_of_memory
from losa.extract.media import Media
from losa.extract.planning import gather_inputs
from losa.features import FeatureSpec, Regime
from losa.live.source import LiveSource
from losa.precision import magnitudes

TODO_READ = "mend or remove it, or use --on-error skip"
TODO_FIT = "use --store-dtype bfloat16 or float32, another --amp-dtype, or check the weights"


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
    source = LiveSource(gather_inputs(extraction_of(config), is_written=False))

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
        check = _FitCheck(split, self._spec)

        def groups() -> Iterator[list[Media]]:
            for rows in order:
                ahead.append(rows)
                yield [self._source.media(split, row) for row in rows.tolist()]

        # Padded, as extraction pads: what a row becomes does not depend on the batch's size.
        for decoded in self._pool.batches(groups(), pad_to=self._options.batch_size):
            rows = ahead.popleft()
            _refuse_failures(split, rows, decoded)
            yield self._batch(split, rows, decoded.pixels, check)
        check.finish()

    def _batch(
        self,
        split: RowReader,
        rows: Int64[np.ndarray, "b"],
        pixels: UInt8[np.ndarray, "n h w 3"],
        check: _FitCheck,
    ) -> FeatureBatch:
        count, device = len(rows), self._options.device
        labels = torch.from_numpy(split.labels[rows].astype(np.int64))
        with out_of_memory(self._planes.backbone, self._options.batch_size):
            planes, encoded = self._planes(_moved(torch.from_numpy(pixels), device))
            values = torch.stack([one.values[:count] for one in encoded])
            scales = [one.scales[:count] for one in encoded if one.scales is not None]
            largest = [
                magnitudes(*each)[:count]
                for each in zip(planes, encoded, self._exponents, strict=True)
            ]
            check.begin(rows, torch.stack(largest))
        stacked = torch.stack(scales) if scales else None
        return FeatureBatch(values, _moved(labels, device), rows, stacked)


class _FitCheck:
    """Refuses features that are not finite or do not fit, without making the host wait.

    On CUDA a batch is judged when the next one is asked for, by then long copied.
    """

    def __init__(self, split: RowReader, spec: FeatureSpec) -> None:
        self._split = split
        self._spec = spec
        self._rows: Int64[np.ndarray, Any] | None = None
        self._largest: Tensor | None = None
        self._copied: torch.cuda.Event | None = None

    def begin(self, rows: Int64[np.ndarray, "b"], largest: Float[Tensor, "k b"]) -> None:
        """Judge the batch before, and take in another.

        Raises:
            InputError: a sample's features do not fit.
        """
        self.finish()
        self._rows = rows
        if largest.device.type != "cuda":
            self._largest = largest
            self.finish()
            return
        self._largest = torch.empty(largest.shape, dtype=largest.dtype, pin_memory=True)
        self._largest.copy_(largest, non_blocking=True)
        self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's stubs
        self._copied.record(torch.cuda.current_stream(largest.device))

    def finish(self) -> None:
        """Judge the last batch.

        Raises:
            InputError: a sample's features do not fit.
        """
        rows, largest = self._rows, self._largest
        self._rows = self._largest = None
        if rows is None or largest is None:
            return
        if self._copied is not None:
            self._copied.synchronize()
        wrong = torch.nonzero(~largest.isfinite())
        if len(wrong):
            tap, position = wrong[0].tolist()
            path = _path(self._split, int(rows[position]))
            what = f"its features at tap {self._spec.taps[tap]} do not fit {self._spec.dtype}"
            raise InputError(path, what, TODO_FIT)


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
