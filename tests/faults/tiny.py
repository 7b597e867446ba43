"""The store that every fault test writes, and what may be read from what is left of it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np

from losa.errors import LosaError
from losa.features import StoreDtype
from losa.store import Plan, Store, StoreWriter, files, layout, open_store, system, writer
from losa.store.claims import ShardTask
from tests.store.build import begin_store, features, samples, small_plan, statistics, token_scales

SPLIT: Final = "train"
TAPS: Final = (1, 3)
SHARDS: Final = 2


def tiny_plan(dtype: StoreDtype = "float16") -> Plan:
    """Two taps, two shards, the second one partial: some fifty files of some bytes."""
    return small_plan({SPLIT: 5}, dtype, shard_rows=3)


def one_shard_plan() -> Plan:
    """The tiny plan with its first shard alone."""
    return small_plan({SPLIT: 3}, shard_rows=3)


def write_store(
    path: Path,
    plan: Plan,
    *,
    durable: bool = True,
    promised: Callable[[Path], object] = lambda _: None,
    begun: Callable[[ShardTask], object] = lambda _: None,
) -> None:
    """What the extract command does: begin the store if it is missing, then whatever is left."""
    if not path.exists():
        begin_store(path, plan, durable=True)
        promised(path)
    with StoreWriter(path, durable=durable) as store:
        if not store.is_sealed:
            store.withdraw_damaged()
            for task in store.claimed():
                begun(task)
                write_shard(store, task)
    with StoreWriter(path, durable=True) as store:
        store.seal()
    promised(path / layout.SEALED_OBJECT)


def write_shard(store: StoreWriter, task: ShardTask) -> None:
    """Write the rows of one shard, two at a time."""
    planes, scales = features(store.plan, task.split), token_scales(store.plan, task.split)
    with store.shard(task) as shard:
        for first in range(task.first, task.stop, 2):
            rows = slice(first, min(task.stop, first + 2))
            shard.write(
                list(planes[:, rows]),
                np.ones(rows.stop - first, np.uint8),
                None if scales is None else list(scales[:, rows]),
            )


def reads_as_written(path: Path, plan: Plan) -> bool:
    """Whether all of a store can be read; what is refused is fine, what differs never is.

    Rows are read one by one, for what is refused of one says nothing of the others.
    """
    try:
        store = open_store(path)
        parts = _parts(store, plan)
    except LosaError:
        return False
    whole = True
    for read, want in parts:
        try:
            have = read()
        except LosaError:
            whole = False
        else:
            np.testing.assert_array_equal(have, want)
    return whole


def _parts(store: Store, plan: Plan) -> list[tuple[Callable[[], Any], Any]]:
    """Everything a reader can ask of the store, and what the answer must be."""
    split = store.split(SPLIT)
    order, rows = split.source_index, plan.splits[SPLIT].rows
    listed = samples(plan)[SPLIT]
    parts: list[tuple[Callable[[], Any], Any]] = [
        (lambda: sorted(order.tolist()), list(range(rows))),
        (lambda: split.labels, [listed[i].label for i in order]),
        (lambda: split.status, np.ones(rows)),
        (lambda: [sample.key for sample in split.samples], [sample.key for sample in listed]),
    ]
    parts += [(partial(_statistic, store, name), want) for name, want in statistics(plan).items()]
    planes, scales = features(plan, SPLIT), token_scales(plan, SPLIT)
    for row in range(rows):
        want = [planes[:, row]] if scales is None else [planes[:, row], scales[:, row]]
        parts.append((partial(_read_row, store, row), _flat(want)))
    return parts


def _statistic(store: Store, name: str) -> Any:
    return getattr(store.calibration(TAPS), name)


def _read_row(store: Store, row: int) -> np.ndarray:
    split = store.split(SPLIT)
    taps, *shape = store.spec.shape
    out = np.empty((taps, 1, *shape), split.raw_dtype)
    scales = np.empty((taps, 1, shape[0]), np.float16) if store.spec.scale_bytes else None
    split.read_into(np.array([row]), TAPS, out, scales)
    return _flat([out] if scales is None else [out, scales])


def _flat(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([array.astype(np.float64).reshape(-1) for array in arrays])


def committed(path: Path) -> set[int]:
    """Shards that have a commit record."""
    return {n for n in range(SHARDS) if (path / layout.commit_object(SPLIT, n)).exists()}


@contextmanager
def process(*, boot: str = "first", start: int = 1, host: str | None = None) -> Iterator[None]:
    """Be another process of this number: of another start time, boot of the machine, or host."""
    with (
        mock.patch.object(files, "boot_id", return_value=boot),
        mock.patch.object(files, "start_time", return_value=start),
        mock.patch("socket.gethostname", return_value=host or socket.gethostname()),
    ):
        files.process_space.cache_clear()
        try:
            yield
        finally:
            files.process_space.cache_clear()


def one_thread(*_: object) -> ThreadPoolExecutor:
    """A pool in which one thing happens after the other."""
    return ThreadPoolExecutor(1)


@contextmanager
def through(calls: system.System) -> Iterator[None]:
    """Let the store act through ``calls``, in an order that is always the same."""
    with (
        mock.patch.object(system, "current", calls),
        mock.patch.object(writer, "ThreadPoolExecutor", one_thread),
    ):
        yield
