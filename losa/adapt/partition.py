"""Which rows train, which choose, and which are only reported on."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32, Int64

from losa.adapt.source import READABLE, FeatureSource, RowReader
from losa.adapt.task import known_rows, strata, task_in
from losa.errors import InputError, UsageError
from losa.store.order import row_order

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Part:
    """Listed rows of a split in one role: the readable ones and the others, both ascending."""

    split: RowReader
    rows: Int64[np.ndarray, "n"]
    skipped: Int64[np.ndarray, "..."]

    @property
    def skipped_labels(self) -> Int64[np.ndarray, "..."]:
        """Classes of the rows that cannot be read."""
        labels: Int64[np.ndarray, "..."] = self.split.labels[self.skipped].astype(np.int64)
        return labels


@dataclass(frozen=True, eq=False)
class Parts:
    """Train to learn, val to choose, test to report; there may be no val, and no test."""

    train: Part
    val: Part | None
    test: Part | None


def part_of(split: RowReader, rows: Int64[np.ndarray, "n"] | None = None) -> Part:
    """The given rows of a split, or all of them; those without a target take no part."""
    known = known_rows(split)
    listed = known if rows is None else np.intersect1d(rows, known)
    readable = split.status[listed] == READABLE
    return Part(split, listed[readable], listed[~readable])


def clean_rows(split: RowReader) -> Int64[np.ndarray, "n"]:
    """The rows of a split that are the clean view of their sample: one for each, ascending."""
    return np.flatnonzero(split.views == 0)


def partition(store: FeatureSource, *, val_fraction: float, seed: int) -> Parts:
    """The parts of a store; without a val split, ``val_fraction`` of train is held out.

    Train has all views of its samples, and of those that are held out it has none; what chooses and
    what is reported on are clean views. ``val_fraction`` 0: nothing is held out, nothing chooses.

    Raises:
        InputError: there is no train split, or it has no readable row; a label is none of the
            classes.
        UsageError: ``val_fraction`` is 0, and the store has a val split.
    """
    if "train" not in store.splits:
        raise InputError(
            "--store", f"has no train split, only {', '.join(store.splits)}", "extract train too"
        )
    learn, choose = _train_and_val(store, val_fraction, seed)
    test = _test_part(store)
    for name in ("train", "val", "test"):
        if name in store.splits and (name != "test" or test is not None):
            check_labels(name, store)
            _warn_of_missing_classes(name, store)
    if not len(learn.rows):
        raise InputError("--store", "has no readable train row", "see losa inspect")
    if choose is not None and not len(choose.rows):
        raise InputError("--store", "has no readable val row", "extract a val split")
    return Parts(learn, choose, test)


def _train_and_val(
    store: FeatureSource, val_fraction: float, seed: int
) -> tuple[Part, Part | None]:
    train = store.split("train")
    if "val" in store.splits:
        if val_fraction == 0:
            what = "is 0, and the store has a val split, which is not learnt from"
            raise UsageError("--val-fraction", what, "leave it away, or use a store without val")
        return part_of(train), _clean_part(store.split("val"))
    if val_fraction == 0:
        log.info("no val: all of train is learnt from, and the last epoch's weights are kept")
        return part_of(train), None
    learn, choose = (part_of(train, rows) for rows in held_out(store, val_fraction, seed))
    log.info(
        "no val split: %d of %d train rows are held out for it (%.3g of each class, seed %d)",
        len(choose.rows) + len(choose.skipped),
        len(np.intersect1d(clean_rows(train), known_rows(train))), val_fraction, seed,
    )  # fmt: skip
    return learn, choose


def held_out(
    store: FeatureSource, fraction: float, seed: int
) -> tuple[Int64[np.ndarray, "..."], Int64[np.ndarray, "..."]]:
    """Rows of train that stay, with all their views, and the clean ones of those that do not.

    The same samples are held out of a store whatever the number of its views.
    """
    train = store.split("train")
    if not train.views.any():
        held = holdout(strata(train), fraction, seed)
        return np.flatnonzero(~held), np.flatnonzero(held)
    # As in a store of one view, whose rows come in this order.
    order = row_order(len(train.samples), store.plan.order_seed, "train")
    labels = np.empty(len(order), dtype=np.int32)
    labels[train.source_index] = strata(train)
    is_held = np.zeros(len(order), dtype=np.bool_)
    is_held[order] = holdout(labels[order], fraction, seed)
    held = is_held[train.source_index]
    return np.flatnonzero(~held), np.flatnonzero(held & (train.views == 0))


def holdout(labels: Int32[np.ndarray, "n"], fraction: float, seed: int) -> Bool[np.ndarray, "n"]:
    """Mark a seeded share of each class; one row at least stays, and one of two or more is marked.

    Example:
        >>> int(holdout(np.array([0, 0, 0, 0, 1, 1, 2], dtype=np.int32), 0.25, seed=0).sum())
        2
    """
    order = row_order(len(labels), seed, "holdout")
    grouped = order[np.argsort(labels[order], kind="stable")]
    classes, starts, counts = np.unique(labels[grouped], return_index=True, return_counts=True)
    taken = np.floor(counts * fraction + 0.5).astype(np.int64)
    taken = np.clip(taken, np.minimum(counts - 1, 1), counts - 1)
    place = np.searchsorted(classes, labels[grouped])
    held = np.zeros(len(labels), dtype=np.bool_)
    held[grouped[np.arange(len(labels)) - starts[place] < taken[place]]] = True
    return held


def _test_part(store: FeatureSource) -> Part | None:
    """Test, if there is one to report on: many data sets keep its labels to themselves."""
    if "test" not in store.splits:
        return None
    test = store.split("test")
    if len(store.classes) and not (strata(test) >= 0).any():
        log.warning("--store (split test): has no labels, and is not reported on")
        return None
    return _clean_part(test)


def _clean_part(split: RowReader) -> Part:
    """The clean views of a split, of which clips may have others that only tests average."""
    return part_of(split, clean_rows(split) if split.views.any() else None)


def check_labels(name: str, store: FeatureSource) -> None:
    """Every row of a split has one label, and that is one of the classes; or what a task gives.

    Raises:
        InputError: it has none, or another.
    """
    split = store.split(name)
    if task_in(store) is not None:
        # Rows without a target take no part; but some must.
        if not len(known_rows(split)):
            raise InputError(
                f"--store (split {name})", "has no targets", "add them, or leave it out"
            )
        return
    found = np.unique(split.labels)
    subject = f"--store (split {name})"
    if len(found) and found[0] < 0:
        what = "has samples without a label: nothing can be learnt from them, or measured on them"
        raise InputError(subject, what, "extract it from a data set with labels")
    if len(found) and not (found[0] >= 0 and found[-1] < len(store.classes)):
        raise InputError(
            subject, f"has labels {found[0]}..{found[-1]} of {len(store.classes)} classes",
            "extract the split with labels",
        )  # fmt: skip


def _warn_of_missing_classes(name: str, store: FeatureSource) -> None:
    task = task_in(store)
    if task is not None and task.kind != "classes":
        return
    labels, learnt = strata(store.split(name)), strata(store.split("train"))
    subject = f"--store (split {name})"
    missing = np.setdiff1d(labels[labels >= 0], learnt)
    if len(missing):
        names = ", ".join(store.classes[label] for label in missing[:3].tolist())
        log.warning(
            "%s holds %d classes that train lacks (%s): none of their samples can be right",
            subject, len(missing), names,
        )  # fmt: skip
