"""Batches of decoded images, in order, a bounded number ahead, by processes that leave no orphans.

Workers are spawned, import Pillow and numpy alone, ignore Ctrl-C (the parent decides), stop between
two images when the pool closes, and leave by themselves when the parent is gone.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import UInt8

from losa.errors import ResourceError
from losa.extract.images import ImageError, filter_warnings, load_pixels
from losa.extract.media import Media, as_media
from losa.extract.transforms import Preprocessing


@dataclass(frozen=True, slots=True)
class DecodeFailure:
    """One sample of a batch without pixels: its position, its status code, and why."""

    position: int
    code: int
    message: str


@dataclass(frozen=True)
class DecodedBatch:
    """Pixels of a batch; failed samples and the padding at its end are zero."""

    pixels: UInt8[np.ndarray, "b h w 3"]
    failures: tuple[DecodeFailure, ...]


# A byte of shared memory and no event: whoever is killed while it looks at an event keeps its lock.
_worker_stop: list[ctypes.c_byte] = []
"""The pool's stop flag, in a worker process: it travels to a process at its start alone."""


class DecodePool:
    """Decodes batches of images ahead of their use.

    Args:
        preprocessing: what every image goes through.
        workers: decode processes; with 0, one thread of this process decodes.

    Example:
        >>> half = (0.5, 0.5, 0.5)
        >>> small = Preprocessing((32, 32), 1.0, "center", "bicubic", half, half)
        >>> with DecodePool(small, workers=0) as pool:
        ...     batch = next(pool.batches([[Path("nowhere.png")]], pad_to=4))
        >>> batch.pixels.shape, batch.failures[0].code
        ((4, 32, 32, 3), 2)
    """

    def __init__(self, preprocessing: Preprocessing, *, workers: int) -> None:
        self._preprocessing = preprocessing
        self._workers = workers
        self._executor: Executor | None = None
        self._stop = ctypes.c_byte(0)
        self._filters = ExitStack()

    def __enter__(self) -> DecodePool:
        if self._workers == 0:
            self._stop = ctypes.c_byte(0)
            # Here and not around every image: filters belong to the process, not to a thread.
            self._filters.enter_context(warnings.catch_warnings())
            filter_warnings()
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="losa-decode")
            return self
        context = multiprocessing.get_context("spawn")
        self._stop = context.RawValue(ctypes.c_byte, 0)
        self._executor = ProcessPoolExecutor(
            self._workers, mp_context=context, initializer=_start_worker, initargs=(self._stop,)
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.value = 1
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None
        self._filters.close()

    def batches(
        self, groups: Iterable[Sequence[Path | Media]], *, pad_to: int
    ) -> Iterator[DecodedBatch]:
        """Decode batches of images in the order given, at most ``workers + 2`` of them ahead.

        Args:
            groups: at most ``pad_to`` images each.
            pad_to: rows of every batch that comes out.

        Raises:
            ResourceError: a worker died or ran out of memory.
        """
        pending: deque[Future[DecodedBatch]] = deque()
        try:
            for group in groups:
                pending.append(self._submit(tuple(map(as_media, group)), pad_to))
                if len(pending) >= self._workers + 2:
                    yield _result(pending.popleft())
            while pending:
                yield _result(pending.popleft())
        finally:
            for future in pending:
                future.cancel()

    def _submit(self, items: tuple[Media, ...], rows: int) -> Future[DecodedBatch]:
        """Hand one batch to whoever decodes."""
        assert self._executor is not None, "enter the pool before asking for batches"
        assert len(items) <= rows, "a batch must not be longer than its padding"
        try:
            if self._workers == 0:
                return self._executor.submit(
                    _decode, items, self._preprocessing, rows=rows, stop=self._stop
                )
            return self._executor.submit(_decode_in_worker, items, self._preprocessing, rows)
        except BrokenProcessPool:
            raise _dead_worker() from None


def _result(future: Future[DecodedBatch]) -> DecodedBatch:
    """Wait for a batch; a dead worker is an error, never a wait without end."""
    try:
        return future.result()
    except BrokenProcessPool:
        raise _dead_worker() from None
    except MemoryError:
        raise ResourceError(
            "--num-workers", "a decode worker ran out of memory", "use fewer, or smaller batches"
        ) from None


def _dead_worker() -> ResourceError:
    """The error of a pool that lost a process."""
    return ResourceError(
        "--num-workers",
        "a decode worker died (killed, out of memory, or a crash in a decoder)",
        "use fewer workers, or 0 to decode in this process",
    )


def _decode_in_worker(
    items: tuple[Media, ...], preprocessing: Preprocessing, rows: int
) -> DecodedBatch:
    """Decode one batch in a worker process."""
    return _decode(items, preprocessing, rows=rows, stop=_worker_stop[0])


def _decode(
    items: tuple[Media, ...], preprocessing: Preprocessing, *, rows: int, stop: ctypes.c_byte
) -> DecodedBatch:
    """Decode one batch; the rest of it stays zero once the pool is closing."""
    pixels = np.zeros((rows, *preprocessing.img_size, 3), np.uint8)
    failures = []
    for position, media in enumerate(items):
        if stop.value:
            break
        try:
            pixels[position] = load_pixels(media, preprocessing)
        except ImageError as error:
            failures.append(DecodeFailure(position, int(error.code), error.what))
    return DecodedBatch(pixels, tuple(failures))


def _start_worker(stop: ctypes.c_byte) -> None:
    """Prepare a worker process."""
    _worker_stop.append(stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    filter_warnings()
    threading.Thread(target=_leave_with_parent, name="losa-parent", daemon=True).start()


def _leave_with_parent() -> None:
    """End this process when its parent is gone: a killed parent closes no queue."""
    parent = multiprocessing.parent_process()
    with suppress(OSError):
        if parent is not None:
            parent.join()
    os._exit(1)
