"""From what ``--dataset`` says to the samples of its splits, always in one order."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from losa.errors import UsageError
from losa.extract import torchsets, vtab
from losa.extract.annotations import path_kind
from losa.extract.clips import sets as clipsets
from losa.extract.csvset import list_csv
from losa.extract.folders import CLIPS, IMAGES, FileKind, list_folder
from losa.extract.inat import RELEASES, load_inat
from losa.extract.samples import Dataset, Listing, arranged, stratified_split

__all__ = ["Dataset", "KnownDataset", "known_datasets", "load_dataset", "stratified_split"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KnownDataset:
    """One line of ``losa datasets``: what to write, the layout expected, where to get it."""

    name: str
    layout: str
    source: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """What comes behind the kind, where named data sets lie, the splits asked for, what files."""

    rest: str
    data_dir: Path
    splits: tuple[str, ...] | None
    files: FileKind = IMAGES


def known_datasets() -> tuple[KnownDataset, ...]:
    """Every form that ``--dataset`` takes.

    Example:
        >>> [known.name for known in known_datasets()][:5]
        ['folder:PATH', 'csv:FILE', 'wds:SHARDS', 'hf:NAME', 'inat2018']
    """
    yours = "your own files"
    tasks = ", ".join(vtab.TASKS)
    return (
        KnownDataset(
            "folder:PATH", "split/class/picture.jpg, class/picture.jpg, or pictures alone", yours
        ),
        KnownDataset(
            "csv:FILE", "path,label or path,labels (a;b) or path; split; relative to FILE", yours
        ),
        KnownDataset(
            "wds:SHARDS", "tar files: train-{000..009}.tar, a glob, a folder, http(s)://", yours
        ),
        KnownDataset(
            "hf:NAME",
            "hf:NAME:CONFIG, hf:PATH of save_to_disk, ?label=COLUMN; needs losa[hub]",
            "the hub",
        ),
        *(KnownDataset(name, year.layout, year.source) for name, year in RELEASES.items()),
        KnownDataset("vtab/TASK", f"{vtab.LAYOUT}; vtab/TASK:1000; {tasks}", vtab.SOURCE),
        *(KnownDataset(name, one.layout, one.source) for name, one in clipsets.SETS.items()),
        *(KnownDataset(name, known.layout, known.source) for name, known in torchsets.SETS.items()),
    )


def load_dataset(
    text: str,
    data_dir: Path,
    *,
    splits: tuple[str, ...] | None = None,
    seed: int = 0,
    is_clips: bool = False,
) -> Dataset:
    """List the samples of a data set; no image or clip is opened.

    Args:
        text: a registered name, ``folder:PATH``, ``csv:FILE``, ``wds:SHARDS``, ``hf:NAME``, or a
            path that exists.
        data_dir: where registered data sets lie.
        splits: splits to list; ``None`` lists all.
        seed: of the stratified 80/20 split that a data set without splits gets.
        is_clips: samples are clips; those of some registered data sets always are.

    Raises:
        UsageError: the name is not known, or a split asked for does not exist.
        InputError: files are missing or damaged, or the listing is not fit to train on.
        ResourceError: shards cannot be fetched.
    """
    splits = splits or None
    if is_clips:
        dataset = arranged(_clip_listing(text, data_dir, splits), seed)
    elif text in RELEASES:
        found = load_inat(text, data_dir, splits)
        dataset = Dataset(text, found.root, found.splits, found.classes)
    else:
        dataset = arranged(_listing(text, data_dir, splits), seed)
    dataset = _only(dataset, splits)
    counts = ", ".join(f"{name} {len(samples)}" for name, samples in dataset.splits.items())
    log.info("%s: %d classes; samples: %s", dataset.name, len(dataset.classes), counts)
    return dataset


def _listing(text: str, data_dir: Path, splits: tuple[str, ...] | None) -> Listing:
    """What the reader finds that the text calls for."""
    kind, separator, rest = text.partition(":")
    if kind in _KINDS and rest:
        return _KINDS[kind](_Asked(rest, data_dir, splits))
    if kind in clipsets.SETS:
        return clipsets.list_clip_set(text, data_dir)
    if text.startswith(vtab.PREFIX):
        return vtab.list_task(text.removeprefix(vtab.PREFIX), data_dir, splits)
    if not separator and (text in torchsets.SETS or text in torchsets.REFUSED):
        return torchsets.list_known(text, data_dir)
    place = path_kind(Path(text))
    if place is None:
        near = difflib.get_close_matches(text, (*RELEASES, *torchsets.SETS, *clipsets.SETS), n=1)
        todo = f"did you mean {near[0]}? " if near else ""
        what = f"{text!r} is neither a known data set nor a path that exists"
        raise UsageError("--dataset", what, f"{todo}see losa datasets")
    if place == "folder":
        return list_folder(Path(text), named=splits is not None)
    return list_csv(Path(text))


def _clip_listing(text: str, data_dir: Path, splits: tuple[str, ...] | None) -> Listing:
    """As :func:`_listing`, of clips."""
    kind, _, rest = text.partition(":")
    if kind in clipsets.SETS:
        return clipsets.list_clip_set(text, data_dir)
    if kind in ("folder", "csv") and rest:
        return _KINDS[kind](_Asked(rest, data_dir, splits, CLIPS))
    place = path_kind(Path(text))
    if place is None or kind in ("folder", "csv"):
        names = ", ".join(clipsets.SETS)
        what = f"{text!r} is no data set of clips"
        raise UsageError("--dataset", what, f"use folder:PATH, csv:FILE, or one of {names}")
    if place == "folder":
        return list_folder(Path(text), named=splits is not None, kind=CLIPS)
    return list_csv(Path(text))


def _list_folder(asked: _Asked) -> Listing:
    return list_folder(Path(asked.rest), named=asked.splits is not None, kind=asked.files)


def _list_csv(asked: _Asked) -> Listing:
    return list_csv(Path(asked.rest))


def _list_shards(asked: _Asked) -> Listing:
    from losa.extract.webdataset import list_shards

    return list_shards(asked.rest, asked.data_dir)


def _list_hub(asked: _Asked) -> Listing:
    from losa.extract.huggingface import list_rows

    return list_rows(asked.rest, asked.splits)


def _list_torchvision(asked: _Asked) -> Listing:
    return torchsets.list_known(asked.rest, asked.data_dir)


_KINDS: Final[Mapping[str, Callable[[_Asked], Listing]]] = {
    "folder": _list_folder,
    "csv": _list_csv,
    "wds": _list_shards,
    "hf": _list_hub,
    "torchvision": _list_torchvision,
}


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
