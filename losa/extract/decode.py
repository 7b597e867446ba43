"""Batches of decoded images or clips, in order, a bounded number ahead.

Each of a few threads has a process that decodes for it (``losa/extract/workers.py``), so that an
image may kill or block its decoder without ending the run; or, with no workers, one thread decodes
here, where it may not.
"""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import UInt8

from losa.errors import ResourceError
from losa.extract.images import ImageError, filter_warnings, load_pixels
from losa.extract.media import Media, as_media
from losa.extract.transforms import Preprocessing
from losa.extract.workers import CLIP_SECONDS, IMAGE_SECONDS, DecodeWorkers, Load, Pixels


@dataclass(frozen=True, slots=True)
class DecodeFailure:
    """One sample of a batch without pixels: its position, its status code, and why."""

    position: int
    code: int
    message: str


@dataclass(frozen=True)
class DecodedBatch:
    """Pixels of a batch; failed samples and the padding at its end are zero."""

    pixels: UInt8[np.ndarray, "b ... h w 3"]
    failures: tuple[DecodeFailure, ...]


class DecodePool:
    """Decodes batches of images, or of clips, ahead of their use.

    Args:
        preprocessing: what every image goes through; with a ``clip``, every frame of a clip.
        workers: decode processes; with 0, one thread of this process decodes, and an image that
            crashes or blocks its decoder then crashes or blocks this process.
        seconds: how long a decode process may take for one image or clip; ``None``: the usual.
        opened_ns: files written after this time, as ``time.time_ns`` counts it, have changed under
            the run; ``None``: that is nobody's concern.

    Example:
        >>> half = (0.5, 0.5, 0.5)
        >>> small = Preprocessing((32, 32), 1.0, "center", "bicubic", half, half)
        >>> with DecodePool(small, workers=0) as pool:
        ...     batch = next(pool.batches([[Path("nowhere.png")]], pad_to=4))
        >>> batch.pixels.shape, batch.failures[0].code
        ((4, 32, 32, 3), 2)
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        *,
        workers: int,
        seconds: float | None = None,
        opened_ns: int | None = None,
    ) -> None:
        self._preprocessing = preprocessing
        self._workers = workers
        usual = IMAGE_SECONDS if preprocessing.clip is None else CLIP_SECONDS
        self._seconds = usual if seconds is None else seconds
        self._opened_ns = opened_ns
        self._executor: ThreadPoolExecutor | None = None
        self._decoder: _InThisProcess | DecodeWorkers | None = None
        self._filters = ExitStack()

    def __enter__(self) -> DecodePool:
        load = self._load()
        if self._workers == 0:
            # Here and not around every image: filters belong to the process, not to a thread.
            self._filters.enter_context(warnings.catch_warnings())
            filter_warnings()
            self._decoder = _InThisProcess(load)
        else:
            shape = self._preprocessing.shape
            self._decoder = DecodeWorkers(load, shape, seconds=self._seconds)
        self._executor = ThreadPoolExecutor(max(1, self._workers), "losa-decode")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._executor is not None
        assert self._decoder is not None
        self._decoder.close()
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
            ResourceError: no worker can be started, or this process ran out of memory.
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

    def _load(self) -> Load:
        """How one image, or one clip, becomes pixels."""
        preprocessing, opened_ns = self._preprocessing, self._opened_ns
        if preprocessing.clip is None:
            return partial(load_pixels, preprocessing=preprocessing, opened_ns=opened_ns)
        # Images are decoded without what only clips need.
        from losa.extract.clips.loading import load_clip

        return partial(load_clip, preprocessing=preprocessing, opened_ns=opened_ns)

    def _submit(self, items: tuple[Media, ...], rows: int) -> Future[DecodedBatch]:
        """Hand one batch to whoever decodes."""
        assert self._executor is not None, "enter the pool before asking for batches"
        assert len(items) <= rows, "a batch must not be longer than its padding"
        return self._executor.submit(self._decoded, items, rows)

    def _decoded(self, items: tuple[Media, ...], rows: int) -> DecodedBatch:
        """Decode one batch, in a thread of the pool."""
        assert self._decoder is not None
        pixels = np.zeros((rows, *self._preprocessing.shape), np.uint8)
        failures = []
        for position, found in enumerate(self._decoder.outcomes(items)):
            if isinstance(found, ImageError):
                failures.append(DecodeFailure(position, int(found.code), found.what))
            else:
                pixels[position] = found
        return DecodedBatch(pixels, tuple(failures))


def _result(future: Future[DecodedBatch]) -> DecodedBatch:
    """Wait for a batch."""
    try:
        return future.result()
    except MemoryError:
        raise ResourceError(
            "--num-workers", "decoding ran out of memory", "use fewer, or smaller batches"
        ) from None


class _InThisProcess:
    """Decodes in the thread that asks; stops between two images when it is closed."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._is_closed = threading.Event()

    def outcomes(self, items: Sequence[Media]) -> Iterator[Pixels | ImageError]:
        """Pixels of each image in order, or why it has none."""
        for media in items:
            if self._is_closed.is_set():
                return
            try:
                yield self._load(media)
            except ImageError as error:
                yield error

    def close(self) -> None:
        """Begin no other image."""
        self._is_closed.set()
