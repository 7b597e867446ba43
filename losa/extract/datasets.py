"""From a data set's name, folder or CSV file to the samples of its splits, always in one order."""

from __future__ import annotations

import difflib
import errno
import hashlib
import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from losa.errors import InputError, ResourceError, UsageError
from losa.extract.annotations import Listed, check_keys, path_kind, read_csv, safe_split
from losa.extract.images import EXTENSIONS
from losa.extract.inat import RELEASES, load_inat
from losa.extract.media import Media
from losa.features import Sample

VAL_SHARE: Final = 5
"""One sample in five goes to ``val`` where a data set has no splits of its own."""

_USUAL_SPLITS: Final = ("train", "val", "test")
_SPLIT_FOLDERS: Final = ("train", "val", "valid", "validation", "test", "dev", "eval")

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
class KnownDataset:
    """One line of ``losa datasets``: what to write, the layout expected, where to get it."""

    name: str
    layout: str
    source: str


def known_datasets() -> tuple[KnownDataset, ...]:
    """Every form that ``--dataset`` takes.

    Example:
        >>> [known.name for known in known_datasets()]
        ['folder:PATH', 'csv:FILE', 'inat2018', 'inat2019', 'inat2021']
    """
    yours = "your own files"
    return (
        KnownDataset("folder:PATH", "split/class/picture.jpg or class/picture.jpg", yours),
        KnownDataset("csv:FILE", "path,label or path,label,split; paths relative to FILE", yours),
        *(KnownDataset(name, year.layout, year.source) for name, year in RELEASES.items()),
    )


def load_dataset(
    text: str, data_dir: Path, *, splits: tuple[str, ...] | None = None, seed: int = 0
) -> Dataset:
    """List the samples of a data set; no image is opened.

    Args:
        text: a registered name, ``folder:PATH``, ``csv:FILE``, or a path that exists.
        data_dir: where registered data sets lie.
        splits: splits to list; ``None`` lists all.
        seed: of the stratified 80/20 split that a data set without splits gets.

    Raises:
        UsageError: the name is not known, or a split asked for does not exist.
        InputError: files are missing or damaged, or the listing is not fit to train on.
    """
    splits = splits or None
    kind, _, rest = text.partition(":")
    if text in RELEASES:
        listing = load_inat(text, data_dir, splits)
        dataset = Dataset(text, listing.root, listing.splits, listing.classes)
    elif kind == "folder" and rest:
        dataset = _load_folder(Path(rest), seed, named=splits is not None)
    elif kind == "csv" and rest:
        dataset = _load_csv(Path(rest), seed)
    elif (found := path_kind(Path(text))) == "folder":
        dataset = _load_folder(Path(text), seed, named=splits is not None)
    elif found is not None:
        dataset = _load_csv(Path(text), seed)
    else:
        near = difflib.get_close_matches(text, RELEASES, n=1)
        todo = f"did you mean {near[0]}? " if near else ""
        what = f"{text!r} is neither a known data set nor a path that exists"
        raise UsageError("--dataset", what, f"{todo}see losa datasets")
    dataset = _only(dataset, splits)
    counts = ", ".join(f"{name} {len(samples)}" for name, samples in dataset.splits.items())
    log.info("%s: %d classes; samples: %s", text, len(dataset.classes), counts)
    return dataset


def stratified_split(
    samples: Sequence[Sample], seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Part samples into train and val, 80/20 in every class, whatever order they came in.

    Each class ranks its samples by a hash of seed and key, so a sample's side depends neither on
    the directory's order nor on other classes.
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


def _load_csv(file: Path, seed: int) -> Dataset:
    """A data set that a CSV file lists."""
    listed = read_csv(file)
    numbers = [item.label.isdecimal() for item in listed]
    if any(numbers) and not all(numbers):
        odd = listed[numbers.index(not numbers[0])]
        what = f"{odd.where}: label {odd.label!r} is of another kind than {listed[0].label!r}"
        raise InputError(file, what, "use names throughout, or whole numbers throughout")
    if all(numbers):
        _check_spelling(listed, file)
    return _dataset(f"csv:{file.name}", listed, seed, root=file.parent, source=file)


def _check_spelling(listed: Sequence[Listed], file: Path) -> None:
    """A number has one spelling: ``01`` beside ``1`` would be a second class."""
    first: dict[int, Listed] = {}
    for item in listed:
        other = first.setdefault(int(item.label), item)
        if item.label != other.label:
            what = f"{item.where}: label {item.label!r} is the number of {other.where}"
            raise InputError(file, f"{what}, {other.label!r}", "write it in one way throughout")


def _load_folder(root: Path, seed: int, *, named: bool) -> Dataset:
    """A data set whose folders are its classes, perhaps below folders that are its splits."""
    if path_kind(root) != "folder":
        raise InputError(root, "is missing or no folder", "name a folder of images")
    ignored: list[str] = []
    found = [path.split("/") for path in sorted(_images_below(root, (), ignored))]
    if ignored:
        log.info("%s: ignored %d hidden files and files that are no images", root, len(ignored))
    shallow = [parts for parts in found if len(parts) == len(("class", "file"))]
    deep = [parts for parts in found if len(parts) > len(("class", "file"))]
    if not shallow and not deep:
        what = "holds no folders with images"
        raise InputError(root, what, "lay it out as class/picture.jpg or split/class/picture.jpg")
    if shallow and deep:
        one, other = "/".join(shallow[0]), "/".join(deep[0])
        what = f"mixes class/file ({one}) and split/class/file ({other})"
        raise InputError(root, what, "use one layout for all images")
    if deep and not named:
        _check_splits({parts[0] for parts in deep}, root)
    listed = [Listed("/".join(parts), parts[0], None, "/".join(parts)) for parts in shallow]
    for parts in deep:
        split, path = safe_split(parts[0], root, parts[0]), "/".join(parts)
        listed.append(Listed(path, parts[1], split, path))
    if deep:
        _check_filled(root, {item.split for item in listed})
    # The folder's name and not its path: a store must not depend on where its images lay.
    return _dataset(f"folder:{root.resolve().name}", listed, seed, root=root, source=root)


def _check_splits(tops: Collection[str], root: Path) -> None:
    """Folders of class/subfolder/file must not pass for splits: one top folder has a usual name."""
    if any(top.lower() in _SPLIT_FOLDERS for top in tops):
        return
    shown = ", ".join(repr(top) for top in sorted(tops)[:3]) + (", ..." if len(tops) > 3 else "")  # noqa: PLR2004 -- enough to recognise them
    raise InputError(
        root,
        f"reads as split/class/file, but none of {shown} is a usual name of a split",
        f"rename the splits' folders ({', '.join(_SPLIT_FOLDERS)}) or name them with --split; "
        "if they are classes, move their pictures up to class/picture.jpg",
    )


def _check_filled(root: Path, filled: Collection[str | None]) -> None:
    """A folder of a usual split that holds nothing was hardly meant."""
    for split in _USUAL_SPLITS:
        if split not in filled and path_kind(root / split) == "folder":
            raise InputError(root / split, "holds no images", "fill it, or remove it")


def _images_below(
    root: Path, above: tuple[tuple[int, int], ...], ignored: list[str]
) -> Iterator[str]:
    """Paths of image files below a folder, relative to it; links are followed, loops are not."""
    try:
        status = root.stat()
        entries = list(os.scandir(root))
    except OSError as error:
        raise ResourceError(root, f"cannot be listed ({error.strerror})", "check it") from None
    here = (status.st_dev, status.st_ino)
    if here in above:
        ignored.append(str(root))
        return
    for entry in entries:
        is_image = os.path.splitext(entry.name)[1].lower() in EXTENSIONS  # noqa: PTH122 -- a plain name
        if entry.name.startswith("."):
            ignored.append(entry.name)
        elif _is_folder(entry, is_image=is_image):
            for path in _images_below(root / entry.name, (*above, here), ignored):
                yield f"{entry.name}/{path}"
        elif is_image:
            yield entry.name
        else:
            ignored.append(entry.name)


def _is_folder(entry: os.DirEntry[str], *, is_image: bool) -> bool:
    """Whether images may lie below an entry; a link that leads nowhere is left to the decoder."""
    try:
        return entry.is_dir()
    except OSError as error:
        if is_image or error.errno == errno.ELOOP:
            return False
        what = f"cannot be looked at ({error.strerror})"
        raise ResourceError(entry.path, what, "check it") from None


def _dataset(
    name: str, listed: Sequence[Listed], seed: int, *, root: Path, source: Path
) -> Dataset:
    """Give every class a number and every sample its split."""
    names = {item.label for item in listed}
    whole = all(label.isdecimal() for label in names)
    classes = tuple(sorted(names, key=lambda label: (int(label) if whole else 0, label)))
    numbers = {label: number for number, label in enumerate(classes)}
    check_keys((item.path for item in listed), lambda at: listed[at].where, source)
    splits: dict[str, list[Sample]] = {}
    for item in listed:
        sample = Sample(item.path, item.path, numbers[item.label])
        splits.setdefault(item.split or "", []).append(sample)
    if "" not in splits:
        order = sorted(splits, key=lambda split: (_split_rank(split), split))
        return Dataset(name, root, {split: tuple(splits[split]) for split in order}, classes)
    train, val = stratified_split(splits[""], seed)
    log.info("%s: no splits of its own; a seeded fifth of every class is val", name)
    parts = {"train": train, "val": val} if val else {"train": train}
    return Dataset(name, root, parts, classes)


def _split_rank(split: str) -> int:
    """Train, val and test before all others."""
    return _USUAL_SPLITS.index(split) if split in _USUAL_SPLITS else len(_USUAL_SPLITS)


def _only(dataset: Dataset, splits: tuple[str, ...] | None) -> Dataset:
    """The splits asked for."""
    if splits is None:
        return dataset
    for split in splits:
        if split not in dataset.splits:
            have = ", ".join(dataset.splits)
            what = f"{dataset.name} has no split {split!r}"
            raise UsageError("--split", what, f"use one of {have}")
    kept = {split: dataset.splits[split] for split in dataset.splits if split in splits}
    return replace(dataset, splits=kept)
