"""Planes of calibration, kept until their rows are written, so that no image is forwarded twice.

Calibration looks at the first rows of a split, batch by batch as the extraction will: what it has
computed is what the extraction would compute again. It waits in a file without a name, which is
gone with the process, and is bounded; batches beyond the bound are computed again.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Final

import torch
from jaxtyping import Float
from torch import Tensor

from losa.store import Plan, layout
from losa.store.claims import ShardTask
from losa.store.space import bytes_needed, existing_place, free_bytes

MOST_BYTES: Final = 4 * 2**30
FREE_SHARE: Final = 4
"""What is kept takes at most one part in so many of the free space."""

log = logging.getLogger(__name__)
Batch = tuple[str, int, int, int]
"""A batch of a store: its split, its first row, the row after its last, and its padded size."""


class Spool:
    """Batches of planes on the disk that the store will lie on.

    Args:
        place: the store.
        needed: bytes that the store itself still needs there.
    """

    def __init__(self, place: Path, needed: int = 0) -> None:
        self._most = room_at(place, needed)
        self._folder = existing_place(place.parent)
        self._file: IO[bytes] | None = None
        self._size = 0
        self._places: dict[Batch, list[tuple[int, torch.Size, torch.dtype]]] = {}

    def __enter__(self) -> Spool:
        # A place that cannot be written is the concern of whoever creates the store there.
        with suppress(OSError):
            where = self._folder
            self._file = tempfile.TemporaryFile(buffering=0, prefix=".losa-spool-", dir=where)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self._places.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def keep(self, batch: Batch, planes: Sequence[Float[Tensor, "b l d"]]) -> None:
        """Keep a batch, if there is room."""
        nbytes = sum(plane.nbytes for plane in planes)
        if self._file is None or self._size + nbytes > self._most:
            return
        kept = []
        try:
            for plane in planes:
                kept.append((self._size, plane.shape, plane.dtype))
                data = _bytes_of(plane.contiguous().cpu())
                self._size += len(data)
                while data:
                    data = data[self._file.write(data) :]
        except OSError as error:
            log.debug("planes of calibration are not kept: %s", error)
            self.__exit__(None, None, None)
            return
        self._places[batch] = kept

    def take(self, batch: Batch, device: torch.device) -> list[Float[Tensor, "b l d"]] | None:
        """The planes of a batch, which is then forgotten; ``None`` if they were not kept."""
        places = self._places.pop(batch, None)
        if places is None or self._file is None:
            return None
        planes = []
        for offset, shape, dtype in places:
            plane = torch.empty(shape, dtype=dtype)
            data = _bytes_of(plane)
            try:
                if os.preadv(self._file.fileno(), [data], offset) < len(data):
                    return None
            except OSError:
                return None
            planes.append(plane.to(device))
        return planes


def calibration_tasks(plan: Plan) -> list[ShardTask]:
    """The rows that calibration looks at: by shards, in which its batches begin as a store's do."""
    split = plan.calibration_split
    rows = min(plan.calibration_rows, plan.splits[split].rows)
    return [
        ShardTask(split, shard, *layout.shard_span(shard, rows, plan.shard_rows))
        for shard in range(layout.shard_count(rows, plan.shard_rows))
    ]


def rows_kept(plan: Plan, place: Path) -> int:
    """How many of calibration's rows are not forwarded again by the extraction that follows.

    Not those of a batch in which calibration ends before a shard does, nor of those beyond the
    room that there is.
    """
    spec, size = plan.spec, plan.numerics.batch_size
    row_bytes = len(spec.taps) * spec.grid.num_tokens * spec.channels * torch.float32.itemsize
    fitting = room_at(place, bytes_needed(plan)) // (size * row_bytes)
    rows = plan.splits[plan.calibration_split].rows
    batches = [
        min(size, task.stop - first)
        for task in calibration_tasks(plan)
        for first in range(task.first, task.stop, size)
        if first + size <= task.stop or task.stop in (rows, (task.shard + 1) * plan.shard_rows)
    ]
    return sum(batches[: max(0, fitting)])


def room_at(place: Path, needed: int) -> int:
    """Bytes that may be kept beside a store that still needs so many; less than 0 is none."""
    free = free_bytes(place)
    return min(MOST_BYTES, free // FREE_SHARE, free - needed)


def _bytes_of(plane: Tensor) -> memoryview:
    """The memory of a tensor of any dtype; numpy knows no bfloat16."""
    return plane.view(torch.uint8).numpy().reshape(-1).data
