"""A ring of reused batch buffers that threads fill from a store while the last batch is used.

``prefetch + 2`` buffers are all the memory that reading ever takes. On a CPU a batch is a view of
its buffer; on CUDA buffers are pinned and copied on a stream of their own. One thread reads one tap
of a batch, or a slice of it when there are fewer taps than threads, because only these are
contiguous in a ``[k b l d]`` buffer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from types import TracebackType
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float16, Float32, Int64, Shaped
from torch import Tensor

from losa.adapt.source import FeatureSource, RowReader
from losa.features import FeatureSpec

RAW_DTYPES: Final = {
    "float16": torch.float16,
    "int8": torch.int8,
    "bfloat16": torch.int16,  # its bits, as losa.precision.decode takes them
    "float32": torch.float32,
}

_Scales = Float16[np.ndarray, "k b l"] | None
_Arrays = tuple[Shaped[np.ndarray, "k b l d"], _Scales]
_Piece = tuple[Int64[np.ndarray, "b"], tuple[int, ...], Shaped[np.ndarray, "k b l d"], _Scales]
"""The arguments of one call of ``read_into``."""


@dataclass(frozen=True, slots=True)
class RingOptions:
    """How much a ring holds, who fills it, and where its batches go."""

    batch_size: int
    device: torch.device
    threads: int = 2
    prefetch: int = 2


@dataclass(frozen=True, eq=False)
class FeatureBatch:
    """One batch in the store's dtype, on the device; lives until the next batch is asked for.

    ``scales`` are those of the tokens, of int8 alone.
    """

    features: Shaped[Tensor, "k b l d"]
    labels: Int64[Tensor, "b"]
    rows: Int64[np.ndarray, "b"]
    scales: Float16[Tensor, "k b l"] | None = None


@runtime_checkable
class BatchSource(Protocol):
    """What gives batches to loaders, of which one reads at a time: a ring, or rows in memory."""

    @property
    def spec(self) -> FeatureSpec:
        """The features that are read."""
        ...

    @property
    def options(self) -> RingOptions:
        """Sizes and the device."""
        ...

    @property
    def exponents(self) -> tuple[int, ...]:
        """The store's power of two of each tap, for decoding."""
        ...

    @property
    def quantiser(self) -> Float32[Tensor, "k 2 d"] | None:
        """Mean and scale of each channel of the store, likewise; int8 alone has it."""
        ...

    def batches(
        self, split: RowReader, order: Iterator[Int64[np.ndarray, "b"]]
    ) -> Generator[FeatureBatch, None, None]:
        """Batches of ``split`` for each array of rows; ends the batches asked for before."""
        ...

    def close(self) -> None:
        """End what still reads."""
        ...


def ring_on(store: FeatureSource, taps: tuple[int, ...], options: RingOptions) -> Ring:
    """A ring for some taps of a store, which decodes as the store's calibration says."""
    found = store.calibration(taps)
    return Ring(store.spec.with_taps(taps), options, found.exponent, found.quantiser)


class Ring:
    """The buffers and threads behind one or more loaders, of which one reads at a time.

    Args:
        spec: the features to read; its taps are those that are read.
        options: sizes and the device.
        exponents: the store's power of two of each tap, for decoding.
        quantiser: mean and scale of each channel of the store, likewise; int8 alone has it.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        options: RingOptions,
        exponents: Sequence[int] | None = None,
        quantiser: Float32[np.ndarray, "k 2 d"] | None = None,
    ) -> None:
        self.spec = spec
        self.options = options
        self.exponents = tuple(exponents) if exponents is not None else (0,) * len(spec.taps)
        self.quantiser = None
        if quantiser is not None:
            self.quantiser = torch.tensor(quantiser, device=options.device)
        stream = None
        if options.device.type == "cuda":
            stream = torch.cuda.Stream(options.device)  # type: ignore[no-untyped-call]  # torch's stubs
        self._slots = [_Slot(spec, options, stream) for _ in range(options.prefetch + 2)]
        self._pool = ThreadPoolExecutor(options.threads, thread_name_prefix="losa-read")
        self._current: Generator[FeatureBatch, None, None] | None = None

    def batches(
        self, split: RowReader, order: Iterator[Int64[np.ndarray, "b"]]
    ) -> Generator[FeatureBatch, None, None]:
        """Batches of ``split`` for each array of rows; ends the batches asked for before.

        An error of a reading thread is raised here as it is.
        """
        if self._current is not None:
            self._current.close()
        self._current = self._read(split, order)
        return self._current

    def close(self) -> None:
        """End the threads; what they are reading is waited for, what is queued is dropped."""
        if self._current is not None:
            self._current.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Ring:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _read(
        self, split: RowReader, order: Iterator[Int64[np.ndarray, "b"]]
    ) -> Generator[FeatureBatch, None, None]:
        free = list(self._slots)
        pending: deque[tuple[_Slot, Int64[np.ndarray, "b"], list[Future[None]]]] = deque()

        try:
            # The first batch is what everybody waits for, and opening its shards is work for one
            # thread: several of them stand in each other's way.
            if (rows := next(order, None)) is not None:
                slot = free.pop(0)
                for piece in self._pieces(rows, slot.fill(rows, split)):
                    split.read_into(*piece)
                pending.append((slot, rows, []))
            while True:
                while free and (rows := next(order, None)) is not None:
                    slot = free.pop(0)
                    pending.append((slot, rows, self._submit(split, rows, slot)))
                if not pending:
                    return
                slot, rows, reads = pending[0]
                for read in reads:
                    read.result()
                pending.popleft()
                try:
                    yield slot.deliver(rows)
                finally:
                    # Also when the consumer leaves here: what it has queued still reads the batch.
                    slot.release()
                free.append(slot)
        finally:
            reads = [read for _, _, batch in pending for read in batch]
            for read in reads:
                read.cancel()
            wait(reads)

    def _submit(
        self, split: RowReader, rows: Int64[np.ndarray, "b"], slot: _Slot
    ) -> list[Future[None]]:
        pieces = self._pieces(rows, slot.fill(rows, split))
        return [self._pool.submit(split.read_into, *piece) for piece in pieces]

    def _pieces(self, rows: Int64[np.ndarray, "b"], into: _Arrays) -> Iterator[_Piece]:
        """What one call reads: a tap of the batch, or a part of it for each thread left over."""
        out, scales = into
        taps = self.spec.taps
        count = min(-(-self.options.threads // len(taps)), len(rows))
        bounds = np.linspace(0, len(rows), count + 1).astype(int).tolist()
        for i, tap in enumerate(taps):
            for start, stop in pairwise(bounds):
                part = None if scales is None else scales[i : i + 1, start:stop]
                yield rows[start:stop], (tap,), out[i : i + 1, start:stop], part


class _Buffers(NamedTuple):
    """What one batch takes, at its largest; ``scales`` hold nothing but for int8."""

    features: Shaped[Tensor, "..."]
    scales: Float16[Tensor, "..."]
    labels: Int64[Tensor, "..."]


class _Slot:
    """One set of buffers on the host and, on CUDA, its twin on the device."""

    def __init__(
        self, spec: FeatureSpec, options: RingOptions, stream: torch.cuda.Stream | None
    ) -> None:
        pin = stream is not None
        batch = options.batch_size
        self._shape = spec.shape
        self._is_scaled = spec.scale_bytes > 0
        tokens = len(spec.taps) * spec.grid.num_tokens if self._is_scaled else 0
        self._host = _Buffers(
            torch.empty(batch * prod(spec.shape), dtype=RAW_DTYPES[spec.dtype], pin_memory=pin),
            torch.empty(batch * tokens, dtype=torch.float16, pin_memory=pin),
            torch.empty(batch, dtype=torch.int64, pin_memory=pin),
        )
        self._cuda = None if stream is None else _CudaTwin(self._host, stream)

    def fill(self, rows: Int64[np.ndarray, "b"], split: RowReader) -> _Arrays:
        """Arrays to read ``rows`` into, once their last copy is done; their labels are set here."""
        if self._cuda is not None:
            self._cuda.copied.synchronize()
        labels = split.labels[rows].astype(np.int64)
        self._host.labels[: len(rows)] = torch.from_numpy(labels)
        features, scales = self._views(self._host, len(rows))
        out: np.ndarray[Any, Any] = features.numpy().view(split.raw_dtype)
        return out, None if scales is None else scales.numpy()

    def deliver(self, rows: Int64[np.ndarray, "b"]) -> FeatureBatch:
        """The filled buffers as a batch on the device."""
        buffers = self._host if self._cuda is None else self._cuda.copy(self._host)
        features, scales = self._views(buffers, len(rows))
        return FeatureBatch(features, buffers.labels[: len(rows)], rows, scales)

    def release(self) -> None:
        """The consumer has asked for the next batch."""
        if self._cuda is not None:
            self._cuda.release()

    def _views(
        self, buffers: _Buffers, batch: int
    ) -> tuple[Shaped[Tensor, "k b l d"], Float16[Tensor, "k b l"] | None]:
        k, l, d = self._shape  # noqa: E741 -- the axis letter
        features = buffers.features[: k * batch * l * d].view(k, batch, l, d)
        if not self._is_scaled:
            return features, None
        return features, buffers.scales[: k * batch * l].view(k, batch, l)


class _CudaTwin:
    """The device's side of a slot, and the two events that keep host and device apart."""

    def __init__(self, host: _Buffers, stream: torch.cuda.Stream) -> None:
        self._device = _Buffers(
            *(torch.empty_like(item, device=stream.device, pin_memory=False) for item in host)
        )
        self._stream = stream
        self.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's stubs
        self._freed = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's stubs

    def copy(self, host: _Buffers) -> _Buffers:
        """Copy on the side stream; the consumer's stream waits for it, the host does not."""
        self._stream.wait_event(self._freed)
        with torch.cuda.stream(self._stream):
            for twin, item in zip(self._device, host, strict=True):
                twin.copy_(item, non_blocking=True)
            self.copied.record(self._stream)
        torch.cuda.current_stream(self._stream.device).wait_event(self.copied)
        return self._device

    def release(self) -> None:
        """Let the next copy start only when all that the consumer has queued is done."""
        self._freed.record(torch.cuda.current_stream(self._stream.device))
