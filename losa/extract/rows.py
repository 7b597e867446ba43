"""Decoded batches of a store's rows, whose shapes depend on nothing but the plan.

Batches lie at fixed offsets inside each shard and are padded to the plan's size, whatever was
interrupted before and whichever neighbour cannot be read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from losa.errors import InputError
from losa.extract.augment import view_of
from losa.extract.datasets import Dataset
from losa.extract.decode import DecodedBatch, DecodeFailure, DecodePool
from losa.extract.media import Media
from losa.features import Sample
from losa.store import Plan
from losa.store.claims import ShardTask
from losa.store.order import row_places

Skipped = Callable[[str], Mapping[int, tuple[int, str]] | None]
"""For a split, status code and message of each row that was skipped when its other taps were
computed; ``None`` where none of its taps was."""


@dataclass(frozen=True, slots=True)
class RowBatch:
    """The pixels of consecutive rows of one shard, padding behind them."""

    task: ShardTask
    first: int
    samples: Sequence[Sample]
    decoded: DecodedBatch


def none_before(_: str) -> None:
    """No split has features yet."""


class RowSource:
    """Decodes rows of one store.

    Args:
        dataset: the samples of every split of the plan.
        plan: the store's plan.
        on_error: what becomes of a sample that cannot be read, in splits without features yet.
        skipped: which rows hold no features in splits that have some.
    """

    def __init__(
        self,
        dataset: Dataset,
        plan: Plan,
        on_error: Literal["fail", "skip"],
        skipped: Skipped = none_before,
    ) -> None:
        self._dataset = dataset
        self._plan = plan
        self._on_error = on_error
        self._skipped = skipped
        self._places = cache(row_places)

    def batches(self, pool: DecodePool, tasks: Iterable[ShardTask]) -> Iterator[RowBatch]:
        """Decode the rows of shards in order.

        Raises:
            InputError: a sample cannot be read, and must.
        """
        size = self._plan.numerics.batch_size
        ahead: deque[tuple[ShardTask, int, Sequence[Sample]]] = deque()

        def places() -> Iterator[list[Media]]:
            for task in tasks:
                for first in range(task.first, task.stop, size):
                    rows = slice(first, min(first + size, task.stop))
                    group = list(self._group(task.split, rows))
                    ahead.append((task, first, [sample for sample, _ in group]))
                    yield [media for _, media in group]

        for decoded in pool.batches(places(), pad_to=size):
            yield self._judged(RowBatch(*ahead.popleft(), decoded))

    def _group(self, split: str, rows: slice) -> Iterator[tuple[Sample, Media]]:
        """The sample of each of some rows, and where its bytes are as the view that the row is."""
        plan, listed = self._plan, self._dataset.splits[split]
        places = self._places(len(listed), plan.views_of(split), plan.order_seed, split)
        found = zip(places.source_index[rows].tolist(), places.view[rows].tolist(), strict=True)
        for index, view in found:
            sample = listed[index]
            media = self._dataset.media(sample)
            augment, is_trained_on = (
                plan.augment_in(split),
                plan.is_trained_beside_test_views(split),
            )
            yield sample, view_of(augment, media, sample.key, view, is_trained_on=is_trained_on)

    def _judged(self, batch: RowBatch) -> RowBatch:
        """Settle which rows of a batch hold features, and refuse what may not be missing."""
        skipped, failures = self._skipped(batch.task.split), batch.decoded.failures
        if skipped is not None:
            return self._as_before(batch, skipped)
        if failures and self._on_error == "fail":
            raise self._unreadable(batch, failures[0], "mend or remove it, or use --on-error skip")
        return batch

    def _as_before(self, batch: RowBatch, skipped: Mapping[int, tuple[int, str]]) -> RowBatch:
        """Skip the rows that were skipped at other taps, for the same reasons, and no others."""
        for failure in batch.decoded.failures:
            if batch.first + failure.position not in skipped:
                todo = "it was readable when the other taps were extracted: restore it"
                raise self._unreadable(batch, failure, todo)
        failures = []
        for position in range(len(batch.samples)):
            if batch.first + position in skipped:
                failures.append(DecodeFailure(position, *skipped[batch.first + position]))
                batch.decoded.pixels[position] = 0
        return replace(batch, decoded=replace(batch.decoded, failures=tuple(failures)))

    def _unreadable(self, batch: RowBatch, failure: DecodeFailure, todo: str) -> InputError:
        path = self._dataset.root / batch.samples[failure.position].path
        return InputError(path, failure.message, todo)
