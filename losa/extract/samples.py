"""From listed lines to a data set: every class gets its number, every sample its split."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from losa.errors import InputError
from losa.extract.annotations import Listed, check_keys
from losa.extract.media import Media
from losa.features import Sample

VAL_SHARE: Final = 5
"""One sample in five goes to ``val`` where a data set has no splits of its own."""

USUAL_SPLITS: Final = ("train", "val", "test")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Samples of every split in listing order; label ``i`` is ``classes[i]``.

    ``pieces`` says by its path where a sample's bytes are that is no file of its own.
    """

    name: str
    root: Path
    splits: Mapping[str, tuple[Sample, ...]]
    classes: tuple[str, ...]
    pieces: Mapping[str, Media] = field(default_factory=dict)

    def media(self, sample: Sample) -> Media:
        """Where a sample's bytes are."""
        return self.pieces.get(sample.path) or Media(self.root / sample.path)


@dataclass(frozen=True, slots=True)
class Listing:
    """What a reader of one kind of data set found.

    Args:
        name: what a plan calls it: the same wherever the data set lies.
        root: the folder that paths lie below.
        source: the file or folder that a message names.
        lines: all samples, in an order that no directory decides.
        classes: the class names by number; ``None``: those that the lines name, sorted.
        pieces: as :attr:`Dataset.pieces`.
    """

    name: str
    root: Path
    source: Path
    lines: Sequence[Listed]
    classes: tuple[str, ...] | None = None
    pieces: Mapping[str, Media] = field(default_factory=dict)


def arranged(listing: Listing, seed: int) -> Dataset:
    """Number the classes, and part what has no splits of its own by a seed.

    Raises:
        InputError: nothing is listed, two lines name one sample, or only some lines have a label.
    """
    lines = listing.lines
    if not lines:
        raise InputError(listing.source, "lists no samples", "name a data set with images")
    _check_alike(lines, listing.source)
    if listing.pieces:
        _check_unique(lines, listing.source)
    else:
        check_keys((item.path for item in lines), lambda at: lines[at].where, listing.source)
    classes = listing.classes
    if classes is None:
        classes = class_order({name for item in lines for name in _names(item)})
    numbers = {label: number for number, label in enumerate(classes)}
    splits: dict[str, list[Sample]] = {}
    for item in lines:
        splits.setdefault(item.split or "", []).append(_sample(item, numbers))
    if "" in splits:
        parts = _parted(listing.name, splits[""], seed)
    else:
        order = sorted(splits, key=lambda split: (_rank(split), split))
        parts = {split: tuple(splits[split]) for split in order}
    return Dataset(listing.name, listing.root, parts, classes, listing.pieces)


def _check_unique(lines: Sequence[Listed], source: Path) -> None:
    """Pieces name no files, which a system may take for the same: their names need but differ.

    Raises:
        InputError: two samples have one key, or one path.
    """
    for names in ([item.key or item.path for item in lines], [item.path for item in lines]):
        seen: dict[str, Listed] = {}
        for name, item in zip(names, lines, strict=True):
            other = seen.setdefault(name, item)
            if other is not item:
                what = f"{other.where} and {item.where} are both called {name!r}"
                raise InputError(source, what, "rename a shard or a split")


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in the order of their numbers: as text, or as numbers if all of them are.

    Example:
        >>> class_order({"10", "9"}), class_order({"b", "10", "9"})
        (('9', '10'), ('10', '9', 'b'))
    """
    known = set(names)
    whole = all(name.isdecimal() for name in known)
    return tuple(sorted(known, key=lambda name: (int(name) if whole else 0, name)))


def stratified_split(
    samples: Sequence[Sample], seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Part samples into train and val, 80/20 in every class, whatever order they came in.

    Each class ranks its samples by a hash of seed and key, so a sample's side depends neither on
    the directory's order nor on other classes. Samples of several classes count as one class.
    """
    by_class: dict[int, list[Sample]] = {}
    for sample in samples:
        by_class.setdefault(sample.label, []).append(sample)
    val_keys: set[str] = set()
    for members in by_class.values():
        members.sort(key=lambda member: hashlib.sha256(f"{seed}\n{member.key}".encode()).digest())
        share = (len(members) + VAL_SHARE // 2) // VAL_SHARE
        val_keys.update(member.key for member in members[:share])
    train = tuple(sample for sample in samples if sample.key not in val_keys)
    return train, tuple(sample for sample in samples if sample.key in val_keys)


def _check_alike(lines: Sequence[Listed], source: Path) -> None:
    """One label, several, or none: the same for all samples of a split."""
    kinds: dict[str | None, tuple[bool, Listed]] = {}
    for item in lines:
        labelled = bool(item.label is not None or item.labels is not None)
        first, other = kinds.setdefault(item.split, (labelled, item))
        if first != labelled:
            one, two = (item, other) if first else (other, item)
            what = f"{one.where} has no label, and {two.where} has one"
            raise InputError(source, what, "give every sample of a split a label, or none")


def _names(item: Listed) -> tuple[str, ...]:
    """Names of the classes of a line."""
    if item.labels is not None:
        return item.labels
    return () if item.label is None else (item.label,)


def _sample(item: Listed, numbers: Mapping[str, int]) -> Sample:
    key = item.path if item.key is None else item.key
    if item.labels is not None:
        labels = tuple(sorted({numbers[name] for name in item.labels}))
        return Sample(key, item.path, -1, labels)
    return Sample(key, item.path, -1 if item.label is None else numbers[item.label])


def _parted(name: str, samples: Sequence[Sample], seed: int) -> dict[str, tuple[Sample, ...]]:
    """The splits of samples that came without any."""
    if samples[0].label < 0 and samples[0].labels is None:
        log.info("%s: no labels: all %d samples are train, and none val", name, len(samples))
        return {"train": tuple(samples)}
    train, val = stratified_split(samples, seed)
    share = "the samples" if samples[0].labels is not None else "every class"
    log.info("%s: no splits of its own; a seeded fifth of %s is val", name, share)
    return {"train": train, "val": val} if val else {"train": train}


def _rank(split: str) -> int:
    """Train, val and test before all others."""
    return USUAL_SPLITS.index(split) if split in USUAL_SPLITS else len(USUAL_SPLITS)
