"""What is to be learnt on a store: its own labels, or the targets of a file.

A store of one label a sample is taken as it is. For every other task the store is seen through
:class:`TaskSource`, whose rows carry what :mod:`losa.adapt.objective` looks up: a class, or a line
of the task's table.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float16, Int32, Int64, Shaped, UInt8
from torch import Tensor

from losa.adapt.numberscores import Scale
from losa.adapt.source import FeatureSource, RowReader
from losa.adapt.targets import Kind, Targets, read_targets
from losa.errors import InputError, MismatchError
from losa.features import FeatureSpec, Sample
from losa.store import Calibration, Plan
from losa.store.order import EpochOrder

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Task:
    """Targets of the samples of all splits, one line a sample; ``first`` is a split's first line.

    Of classes the table has one number a line (-1: none), of labels a list of them filled up with
    the number of classes, of numbers these. ``names`` are those of the logits, ``digest`` the
    identity of a file of targets, or nothing. ``known`` marks lines that have a target.
    """

    kind: Kind
    names: tuple[str, ...]
    table: Shaped[Tensor, "n ..."]
    known: Bool[np.ndarray, "n"]
    first: Mapping[str, int]
    digest: str = ""

    def strata(self, lines: Int64[np.ndarray, "n"]) -> Int32[np.ndarray, "n"]:
        """By which a split's lines are held out evenly: class, rarest label, or all alike.

        -1: not at all. Which label is rare is a matter of these lines alone: what is held out of
        train stays so when a store is given another split.
        """
        known = self.known[lines]
        if self.kind == "numbers":
            return np.where(known, 0, -1).astype(np.int32)
        table = self.table.numpy()[lines]
        if self.kind == "classes":
            classes: Int32[np.ndarray, "n"] = table.astype(np.int32)
            return classes
        y = len(self.names)
        counts = np.bincount(table.ravel(), minlength=y + 1)
        # Fewest first, and no label at all after every label.
        rank = np.empty(y + 1, np.int32)
        rank[np.argsort(np.append(counts[:y], counts.sum() + 1), kind="stable")] = np.arange(y + 1)
        return np.where(known, rank[table].min(1), -1).astype(np.int32)


class TaskSplit:
    """The rows of a split as a task has them."""

    def __init__(self, split: RowReader, task: Task, name: str) -> None:
        self._split = split
        self._task = task
        self._lines = task.first[name] + split.source_index
        self.known: Bool[np.ndarray, "n"] = task.known[self._lines]
        # Of the listing, not of the rows: a sample counts once, whatever its views.
        listed = task.first[name] + np.arange(len(split.samples))
        self.strata: Int32[np.ndarray, "n"] = task.strata(listed)[split.source_index]

    @property
    def rows(self) -> int:
        """Number of rows, skipped ones and those without a target included."""
        return self._split.rows

    @cached_property
    def labels(self) -> Int32[np.ndarray, "n"]:
        """Of classes the class of each row, -1 where it has none; else its line of the table."""
        if self._task.kind == "classes":
            return self.strata
        lines: Int32[np.ndarray, "n"] = self._lines.astype(np.int32)
        return lines

    @property
    def status(self) -> UInt8[np.ndarray, "n"]:
        """Whether each row was read."""
        return self._split.status

    @property
    def source_index(self) -> Int64[np.ndarray, "n"]:
        """Position of each row in the data set's listing."""
        return self._split.source_index

    @property
    def views(self) -> UInt8[np.ndarray, "n"]:
        """Which view of its sample each row is."""
        return self._split.views

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The data set's listing, with the store's own labels."""
        return self._split.samples

    @property
    def raw_dtype(self) -> np.dtype[np.generic]:
        """What a feature is on disk."""
        return self._split.raw_dtype

    def read_into(
        self,
        rows: Int64[np.ndarray, "b"],
        taps: tuple[int, ...],
        out: Shaped[np.ndarray, "k b l d"],
        scales: Float16[np.ndarray, "k b l"] | None = None,
    ) -> None:
        """Fill ``out`` from the store."""
        self._split.read_into(rows, taps, out, scales)

    def follow(self, order: EpochOrder | None, taps: tuple[int, ...], start: int) -> None:
        """Tell the store what will be read next."""
        self._split.follow(order, taps, start)


class TaskSource:
    """A store whose classes and labels are those of a task."""

    def __init__(self, store: FeatureSource, task: Task) -> None:
        self._store = store
        self._split_of: dict[str, TaskSplit] = {}
        self.task = task

    @property
    def spec(self) -> FeatureSpec:
        """What the features of one sample are."""
        return self._store.spec

    @property
    def store_id(self) -> str:
        """The store's identity."""
        return self._store.store_id

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return self._store.splits

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the task's classes or numbers, one a logit."""
        return self.task.names

    @property
    def plan(self) -> Plan:
        """How the features came about."""
        return self._store.plan

    def calibration(self, taps: tuple[int, ...]) -> Calibration:
        """Statistics of each tap's channels."""
        return self._store.calibration(taps)

    def split(self, name: str) -> TaskSplit:
        """The rows of one split; the same object every time."""
        if name not in self._split_of:
            self._split_of[name] = TaskSplit(self._store.split(name), self.task, name)
        return self._split_of[name]


def with_task(
    store: FeatureSource, targets: Path | None = None, names: Sequence[str] | None = None
) -> FeatureSource:
    """A store as its task has it: itself where that is one label of its own a sample.

    Args:
        store: any store.
        targets: file of targets, or ``None`` for the store's own labels.
        names: the classes or numbers that a run knows; ``None``: those of the file.

    Raises:
        InputError: the file is not as it should be, or names no sample of the store.
        MismatchError: it has classes or numbers that the run does not know.
    """
    if targets is not None:
        found = read_targets(targets)
        listings = {name: store.split(name).samples for name in store.splits}
        return TaskSource(store, task_of_file(found, listings, targets, names))
    if not any(has_several(store.split(name)) for name in store.splits):
        return store
    listings = {name: store.split(name).samples for name in store.splits}
    return TaskSource(store, task_of_samples(listings, store.classes))


def task_in(store: FeatureSource) -> Task | None:
    """The task of a store, if it is not one label of its own a sample."""
    return store.task if isinstance(store, TaskSource) else None


def kind_in(store: FeatureSource) -> Kind:
    """What kind of targets a store has."""
    task = task_in(store)
    return "classes" if task is None else task.kind


def targets_digest(store: FeatureSource) -> str:
    """Identity of the file of targets that a store is seen through; nothing without one."""
    task = task_in(store)
    return "" if task is None else task.digest


def has_several(split: RowReader) -> bool:
    """Whether samples of a split may have several labels, or none."""
    # The samples are read only where a row has no label of its own.
    return bool((split.labels < 0).any()) and is_of_several(split.samples)


def is_of_several(samples: Sequence[Sample]) -> bool:
    """Whether samples were listed with any number of labels each."""
    return any(sample.labels is not None for sample in samples)


def known_rows(split: RowReader) -> Int64[np.ndarray, "..."]:
    """Rows that have a target, ascending: all but where a task leaves some out."""
    return np.flatnonzero(split.known) if isinstance(split, TaskSplit) else np.arange(split.rows)


def strata(split: RowReader) -> Int32[np.ndarray, "n"]:
    """By which rows are held out evenly, -1 for those that have no target."""
    return split.strata if isinstance(split, TaskSplit) else split.labels


def task_of_samples(listings: Mapping[str, Sequence[Sample]], classes: tuple[str, ...]) -> Task:
    """The task of learning the labels that samples were listed with, any number of each."""
    labels = [sample.labels for listing in listings.values() for sample in listing]
    known = np.array([found is not None for found in labels], dtype=np.bool_)
    return Task("labels", classes, _padded(labels, len(classes)), known, _firsts(listings))


def task_of_file(
    targets: Targets,
    listings: Mapping[str, Sequence[Sample]],
    file: Path,
    names: Sequence[str] | None = None,
) -> Task:
    """Join a file's targets to samples by their keys.

    Raises:
        InputError: no key is a sample's; there is nothing to learn, as all of them are one class.
        MismatchError: a class or number is none of ``names``.
    """
    wanted = targets.names if names is None else tuple(names)
    odd = [name for name in targets.names if name not in wanted]
    if odd or (targets.kind == "numbers" and targets.names != wanted):
        what = f"{odd[0]!r} is none of" if odd else f"{len(targets.names)} numbers are not"
        todo = "give targets that the run was trained on"
        raise MismatchError(file, f"{what} the run's {len(wanted)} names", todo)
    keys = [sample.key for listing in listings.values() for sample in listing]
    found = [targets.of_key.get(key) for key in keys]
    known = np.array([item is not None for item in found], dtype=np.bool_)
    _check_joined(targets, known, keys, file)
    if names is None:
        _check_several(targets.kind, found, file)
    numbers = {name: number for number, name in enumerate(wanted)}
    table = _table(targets.kind, found, numbers)
    return Task(targets.kind, wanted, table, known, _firsts(listings), targets.digest)


def task_scale(
    task: Task | None, split: RowReader, rows: Int64[np.ndarray, "n"], file: object
) -> Scale:
    """Mean and deviation of each number over the samples of some rows; nothing but for numbers.

    Raises:
        InputError: a number is the same for all of them.
    """
    if task is None or task.kind != "numbers":
        return ()
    lines = np.unique(split.labels[rows])
    values = task.table.numpy()[lines]
    mean, std = values.mean(0), values.std(0)
    for name, one, deviation in zip(task.names, mean.tolist(), std.tolist(), strict=True):
        if not deviation > 1e-12 * abs(one):
            what = f"{name} is {one:g} for all of train: there is nothing to learn"
            raise InputError(file, what, "leave the column out")
    return tuple(zip(mean.tolist(), std.tolist(), strict=True))


def _check_joined(
    targets: Targets, known: Bool[np.ndarray, "n"], keys: Sequence[str], file: Path
) -> None:
    if not known.any():
        first = next(iter(targets.of_key))
        what = f"none of its {len(targets.of_key)} keys is a sample's: {first!r}, not {keys[0]!r}"
        raise InputError(file, what, "use the keys of the store; see losa inspect")
    strangers = len(targets.of_key) - len(targets.of_key.keys() & set(keys))
    if strangers:
        log.warning("%s: %d of %d keys are no sample's", file, strangers, len(targets.of_key))
    if not known.all():
        log.info("%s: %d of %d samples have no target", file, (~known).sum(), len(known))


def _check_several(
    kind: Kind, found: Sequence[tuple[str, ...] | tuple[float, ...] | None], file: Path
) -> None:
    classes = {item for item in found if item is not None}
    if kind == "classes" and len(classes) == 1:
        what = f"all samples that it names are {classes.pop()[0]!r}: there is nothing to learn"
        raise InputError(file, what, "name samples of two classes or more")


def _table(
    kind: Kind,
    found: Sequence[tuple[str, ...] | tuple[float, ...] | None],
    numbers: Mapping[str, int],
) -> Shaped[Tensor, "n ..."]:
    if kind == "numbers":
        missing = (0.0,) * len(numbers)
        return torch.tensor([item or missing for item in found], dtype=torch.float64)
    labels = [
        None if item is None else tuple(numbers[str(name)] for name in item) for item in found
    ]
    if kind == "classes":
        return torch.tensor([item[0] if item else -1 for item in labels], dtype=torch.int64)
    return _padded(labels, len(numbers))


def _padded(labels: Sequence[tuple[int, ...] | None], classes: int) -> Int64[Tensor, "n ..."]:
    """Lists of labels, filled up with ``classes`` to the length of the longest."""
    width = max([1, *(len(item) for item in labels if item)])
    table = np.full((len(labels), width), classes, dtype=np.int64)
    for line, item in enumerate(labels):
        if item:
            table[line, : len(item)] = item
    return torch.from_numpy(table)


def _firsts(listings: Mapping[str, Sequence[Sample]]) -> dict[str, int]:
    return dict(_running(((name, len(listing)) for name, listing in listings.items())))


def _running(sizes: Iterable[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    """Each name with the sum of the sizes before it."""
    before = 0
    for name, size in sizes:
        yield name, before
        before += size
