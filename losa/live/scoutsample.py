"""Which samples a scout looks at: a seeded few of every class, some to train on, some held out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from losa.errors import InputError
from losa.extract.datasets import Dataset, stratified_split
from losa.features import Sample

HELD_OUT: Final = 5
"""One sample in so many is held out, as far as there are that many."""

CLASS_SAMPLES: Final = 10
"""Samples that every class gets at least, as far as it has them: other classes are left out."""


@dataclass(frozen=True, slots=True)
class Scouted:
    """Samples that probes train on and are measured on; ``held_out_of`` is val, or train."""

    train: tuple[Sample, ...]
    held_out: tuple[Sample, ...]
    classes: tuple[int, ...]
    held_out_of: str

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All of them, those that train first."""
        return (*self.train, *self.held_out)


def scouted_samples(dataset: Dataset, count: int, seed: int) -> Scouted:
    """At most ``count`` samples of ``train`` and ``val``, the classes as even as they can be.

    Where there is no ``val``, a seeded fifth of ``train`` is held out; no other split is looked at.
    Which samples are taken depends on the seed and on their keys, not on the listing's order.

    Raises:
        InputError: there is no ``train``, a sample has no label or several, or one class is all
            there is.
    """
    train, held_out, source = _parts(dataset, seed)
    by_class = _by_class(train, seed)
    at_most = max(2, count // CLASS_SAMPLES)
    classes = tuple(sorted(_ranked_classes(by_class, seed)[:at_most]))
    others = _by_class(held_out, seed)
    share = max(1, count // HELD_OUT)
    kept = _even([others[label] for label in classes if label in others], share)
    found = _even([by_class[label] for label in classes], count - len(kept))
    if len(classes) < 2 or not kept:  # noqa: PLR2004 -- nothing tells one class from none
        what = f"{len(classes)} classes, {len(found)} samples to train on, {len(kept)} held out"
        raise InputError(dataset.name, what, "scout two classes or more, of two samples or more")
    return Scouted(found, kept, classes, source)


def _parts(dataset: Dataset, seed: int) -> tuple[tuple[Sample, ...], tuple[Sample, ...], str]:
    """Samples to train on and to hold out, and the split that the latter come from."""
    if "train" not in dataset.splits:
        have = ", ".join(dataset.splits)
        raise InputError(dataset.name, f"has no train (but {have})", "scout one that has")
    train, val = dataset.splits["train"], dataset.splits.get("val", ())
    for sample in (*train, *val):
        if sample.label < 0:
            what = f"{sample.path} has {'no label' if sample.labels is None else 'several labels'}"
            raise InputError(dataset.name, what, "scout a data set of one label a sample")
    if val:
        return train, val, "val"
    return *stratified_split(train, seed), "train"


def _by_class(samples: Sequence[Sample], seed: int) -> Mapping[int, list[Sample]]:
    """Samples of each class, shuffled by a hash of seed and key."""
    found: dict[int, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.label, []).append(sample)
    for members in found.values():
        members.sort(key=lambda sample: _rank(seed, sample.key))
    return found


def _ranked_classes(by_class: Mapping[int, list[Sample]], seed: int) -> list[int]:
    """Classes, shuffled by a hash of seed and number."""
    return sorted(by_class, key=lambda label: _rank(seed, str(label)))


def _rank(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\n{name}".encode()).digest()


def _even(by_class: Sequence[list[Sample]], count: int) -> tuple[Sample, ...]:
    """The first ``count`` samples when every class gives one in turn, sorted by class again."""
    turns = (sample for turn in zip_longest(*by_class) for sample in turn if sample is not None)
    found = [sample for _, sample in zip(range(count), turns, strict=False)]
    return tuple(sorted(found, key=lambda sample: sample.label))
