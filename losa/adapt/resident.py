"""Rows that are read again and again, read once and kept: in memory, or on a CUDA device.

A batch then is a gather where the rows already are; on a device the host never waits for it. What
is read only once, such as a test split, comes through a ring as ever.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float16, Float32, Int64, Shaped
from torch import Tensor

from losa.adapt.partition import Part
from losa.adapt.ring import RAW_DTYPES, BatchSource, FeatureBatch, Ring, RingOptions, ring_on
from losa.adapt.source import FeatureSource, RowReader
from losa.errors import ResourceError
from losa.features import FeatureSpec, Regime

log = logging.getLogger(__name__)

MEMORY: Final = Path("/proc/meminfo")
GROUPS: Final = Path("/sys/fs/cgroup")
_LIMITS: Final = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)
"""Files of a container's limit, of what it uses, and of what of that is cache: of versions 2, 1."""


GivesBatches = Callable[
    [FeatureSource, tuple[int, ...], RingOptions, Sequence[Part], Regime],
    AbstractContextManager[BatchSource],
]
"""What :func:`batches_on` does, and what does it for features that no store has."""


def batches_on(
    store: FeatureSource,
    taps: tuple[int, ...],
    options: RingOptions,
    parts: Sequence[Part],
    regime: Regime,
) -> Ring | Resident:
    """What gives batches of a store in a regime; ``parts`` are what every epoch reads.

    ``auto`` keeps them on a CUDA device if they fit into half of its free memory. On a CPU the
    kernel's cache does the same already.

    Raises:
        ResourceError: they should be resident, and there is not the memory.
    """
    ring = ring_on(store, taps, options)
    if regime not in ("auto", "resident"):
        return ring
    rows = _rows_by_split(parts)
    need = sum(len(found) for _, found in rows) * ring.spec.sample_bytes
    free = free_bytes(options.device)
    if regime == "auto" and (options.device.type != "cuda" or need > free // 2):
        return ring
    if need > free:
        ring.close()
        what = f"resident needs {need} bytes on {options.device}, of which {free} are free"
        raise ResourceError("--read", what, "give stream, or fewer --taps")
    log.info("%d bytes of features are kept on %s", need, options.device)
    return Resident(ring, rows)


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device, or that the system and a container's limit could free."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min([1024 * _figure(MEMORY, "MemAvailable:"), *_free_in_limits()])


def _free_in_limits() -> Iterator[int]:
    """What the limits of this container leave free; without one, or unreadable, they say nothing.

    Cached files count as used there; those not read for long the kernel would free.
    """
    for limit, used, table, cache in _LIMITS:
        try:
            # A limit that is none reads "max".
            most = int((GROUPS / limit).read_text(encoding="ascii"))
            taken = int((GROUPS / used).read_text(encoding="ascii"))
            taken -= _figure(GROUPS / table, cache)
        except (OSError, ValueError):
            continue
        yield max(0, most - taken)


def _figure(table: Path, name: str) -> int:
    """The number behind a name in one of the kernel's tables; 0 if it is not there."""
    for line in table.read_text(encoding="ascii").splitlines():
        words = line.split()
        if words[0] == name:
            return int(words[1])
    return 0


class Resident:
    """Rows of splits in one place, each read once through a ring; the other rows through it still.

    Args:
        ring: reads, verifies, and says where batches go; it is closed with this.
        rows: the rows of each split that are kept, ascending.
    """

    def __init__(
        self, ring: Ring, rows: Sequence[tuple[RowReader, Int64[np.ndarray, "..."]]]
    ) -> None:
        self._ring = ring
        # The splits too: a number is theirs for as long as they live.
        self._rows = {id(split): (split, found) for split, found in rows}
        self._held: dict[int, _Held] = {}
        self._current: Generator[FeatureBatch, None, None] | None = None
        # One batch lives at a time.
        self._out = _Held.empty(ring.spec, ring.options.batch_size, ring.options.device)

    @property
    def spec(self) -> FeatureSpec:
        """The features that are read."""
        return self._ring.spec

    @property
    def options(self) -> RingOptions:
        """Sizes and the device."""
        return self._ring.options

    @property
    def exponents(self) -> tuple[int, ...]:
        """The store's power of two of each tap, for decoding."""
        return self._ring.exponents

    @property
    def quantiser(self) -> Float32[Tensor, "k 2 d"] | None:
        """Mean and scale of each channel of the store, likewise; int8 alone has it."""
        return self._ring.quantiser

    def batches(
        self, split: RowReader, order: Iterator[Int64[np.ndarray, "b"]]
    ) -> Generator[FeatureBatch, None, None]:
        """Batches of ``split`` for each array of rows; ends the batches asked for before.

        A split that is kept is read here and now, the first time.
        """
        if self._current is not None:
            self._current.close()
        kept = self._rows.get(id(split))
        if kept is None:
            self._current = self._ring.batches(split, order)
        else:
            if id(split) not in self._held:
                self._held[id(split)] = self._load(*kept)
            self._current = self._gathered(kept[1], self._held[id(split)], order)
        return self._current

    def close(self) -> None:
        """Let go of all rows, and end the threads that read them."""
        if self._current is not None:
            self._current.close()
        self._held.clear()
        self._ring.close()

    def __enter__(self) -> Resident:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _load(self, split: RowReader, rows: Int64[np.ndarray, "n"]) -> _Held:
        held = _Held.empty(self.spec, len(rows), self.options.device)
        size = self.options.batch_size
        starts = range(0, len(rows), size)
        batches = self._ring.batches(split, (rows[first : first + size] for first in starts))
        for first, batch in zip(starts, batches, strict=True):
            held.put(first, batch)
        return held

    def _gathered(
        self, rows: Int64[np.ndarray, "n"], held: _Held, order: Iterator[Int64[np.ndarray, "b"]]
    ) -> Generator[FeatureBatch, None, None]:
        device = self.options.device
        for asked in order:
            places = np.searchsorted(rows, asked)
            assert np.array_equal(rows[places.clip(max=len(rows) - 1)], asked)
            index = torch.from_numpy(places)
            if device.type == "cuda":
                # From pinned memory, or else the host would wait for the device.
                index = index.pin_memory().to(device, non_blocking=True)
            yield held.gather(index, asked, self._out)


class _Held(NamedTuple):
    """Rows in one place: contiguous whatever their number, hence flat where they are a batch's."""

    shape: tuple[int, int, int]
    features: Shaped[Tensor, "..."]
    scales: Float16[Tensor, "..."] | None
    labels: Int64[Tensor, "..."]

    @classmethod
    def empty(cls, spec: FeatureSpec, rows: int, device: torch.device) -> _Held:
        """Room for some rows.

        Raises:
            ResourceError: there is not the memory.
        """
        tokens = len(spec.taps) * spec.grid.num_tokens
        scales = None
        try:
            features = torch.empty(
                rows * prod(spec.shape), dtype=RAW_DTYPES[spec.dtype], device=device
            )
            if spec.scale_bytes:
                scales = torch.empty(rows * tokens, dtype=torch.float16, device=device)
            labels = torch.empty(rows, dtype=torch.int64, device=device)
        except RuntimeError as error:
            what = f"there is no memory for {rows} rows on {device}"
            raise ResourceError("--read", what, "give stream, or fewer --taps") from error
        return cls(spec.shape, features, scales, labels)

    def put(self, first: int, batch: FeatureBatch) -> None:
        """Keep a batch as the rows from ``first`` on."""
        planes, scales = self.views(len(self.labels))
        stop = first + len(batch.rows)
        planes[:, first:stop] = batch.features
        if scales is not None:
            assert batch.scales is not None
            scales[:, first:stop] = batch.scales
        self.labels[first:stop] = batch.labels

    def gather(
        self, index: Int64[Tensor, "b"], rows: Int64[np.ndarray, "b"], out: _Held
    ) -> FeatureBatch:
        """A batch of some places, in the memory of ``out``."""
        planes, scales = self.views(len(self.labels))
        into, into_scales = out.views(len(rows))
        torch.index_select(planes, 1, index, out=into)
        if scales is not None:
            torch.index_select(scales, 1, index, out=into_scales)
        labels = torch.index_select(self.labels, 0, index, out=out.labels[: len(rows)])
        return FeatureBatch(into, labels, rows, into_scales)

    def views(self, rows: int) -> tuple[Shaped[Tensor, "k n l d"], Float16[Tensor, "k n l"] | None]:
        """The first ``rows`` rows' worth of memory, as planes and scales."""
        k, l, d = self.shape  # noqa: E741 -- the axis letter
        planes = self.features[: k * rows * l * d].view(k, rows, l, d)
        if self.scales is None:
            return planes, None
        return planes, self.scales[: k * rows * l].view(k, rows, l)


def _rows_by_split(
    parts: Sequence[Part],
) -> list[tuple[RowReader, Int64[np.ndarray, "..."]]]:
    """The rows of each split that any part has, ascending."""
    found: dict[int, tuple[RowReader, Int64[np.ndarray, "..."]]] = {}
    for part in parts:
        _, before = found.get(id(part.split), (part.split, part.rows))
        found[id(part.split)] = part.split, np.union1d(before, part.rows)
    return list(found.values())
