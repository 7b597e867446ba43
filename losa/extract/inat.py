"""iNaturalist 2018, 2019 and 2021 as released: COCO-style JSON beside folders of JPEG files."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from losa.errors import InputError, UsageError
from losa.extract.annotations import (
    CocoListing,
    category_names,
    check_keys,
    path_kind,
    read_coco,
    read_json,
)
from losa.features import Sample

SOURCE: Final = "https://github.com/visipedia/inat_comp/tree/master"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Release:
    """One year's release: the file of each split (the first that exists counts), and its images."""

    name: str
    files: Mapping[str, tuple[str, ...]]
    layout: str

    @property
    def source(self) -> str:
        """Where the release can be fetched."""
        return f"{SOURCE}/{self.name.removeprefix('inat')}"


RELEASES: Final[Mapping[str, Release]] = {
    year.name: year
    for year in (
        Release(
            "inat2018",
            {"train": ("train2018.json",), "val": ("val2018.json",)},
            "train2018.json, val2018.json, perhaps categories.json; train_val2018/*/*/*.jpg",
        ),
        Release(
            "inat2019",
            {"train": ("train2019.json",), "val": ("val2019.json",)},
            "train2019.json, val2019.json, perhaps categories.json; train_val2019/*/*/*.jpg",
        ),
        Release(
            "inat2021",
            {"train": ("train.json", "train_mini.json"), "val": ("val.json",)},
            "train.json or train_mini.json, val.json; {train,train_mini,val}/*/*.jpg",
        ),
    )
}
"""The releases by the name that ``--dataset`` takes."""


@dataclass(frozen=True, slots=True)
class InatListing:
    """A release as found on disk."""

    root: Path
    splits: Mapping[str, tuple[Sample, ...]]
    classes: tuple[str, ...]


def load_inat(name: str, data_dir: Path, splits: tuple[str, ...] | None) -> InatListing:
    """Read a release that lies in ``data_dir`` or in a folder of its name below it.

    Raises:
        InputError: a file is missing or damaged, or two files disagree about the categories.
        UsageError: a split was asked for that the release does not label.
    """
    release = RELEASES[name]
    wanted = tuple(release.files) if splits is None else tuple(dict.fromkeys(splits))
    for split in wanted:
        if split not in release.files:
            have = ", ".join(release.files)
            raise UsageError("--split", f"{name} has no labelled {split!r}", f"use one of {have}")
    root = _root(release, data_dir, wanted)
    files = {split: _file(release, root, split) for split in wanted}
    listings = {split: read_coco(file) for split, file in files.items()}
    check_keys(
        (path for listing in listings.values() for path, _ in listing.images),
        lambda position: _place(files, listings, position),
        root,
    )
    categories = _categories(root, files, listings)
    labels = {category: label for label, category in enumerate(categories)}
    found = {
        split: tuple(Sample(path, path, labels[category]) for path, category in listing.images)
        for split, listing in listings.items()
    }
    _check_images(release, root, found)
    return InatListing(root, found, tuple(categories.values()))


def _place(files: Mapping[str, Path], listings: Mapping[str, CocoListing], position: int) -> str:
    """The file and the entry of an image, counted through all splits."""
    for split, listing in listings.items():
        if position < len(listing.images):
            return f"{files[split].name} images[{position}]"
        position -= len(listing.images)
    raise IndexError(position)


def _root(release: Release, data_dir: Path, wanted: tuple[str, ...]) -> Path:
    """The folder that holds the release's JSON files."""
    folders = (data_dir / release.name, data_dir)
    for folder in folders:
        if any(
            path_kind(folder / file) == "file" for names in release.files.values() for file in names
        ):
            return folder
    file = release.files[wanted[0]][0]
    raise InputError(
        data_dir / file,
        f"is missing (also looked in {folders[0]})",
        f"unpack {release.name} there from {release.source}, or name its folder with --data-dir",
    )


def _file(release: Release, root: Path, split: str) -> Path:
    """The JSON file of a split."""
    names = release.files[split]
    for name in names:
        if path_kind(root / name) == "file":
            if name != names[0]:
                log.info("%s: split %s is %s", release.name, split, name)
            return root / name
    others = [other for other in release.files if other != split]
    raise InputError(
        root / names[0],
        "is missing",
        f"fetch it from {release.source}, or take --split {' '.join(others)} alone",
    )


def _categories(
    root: Path, files: Mapping[str, Path], listings: Mapping[str, CocoListing]
) -> Mapping[int, str]:
    """Class names by category id: those released later, where the first were obfuscated."""
    first = next(iter(listings))
    names = listings[first].categories
    for split, listing in listings.items():
        if listing.categories != names:
            what = f"lists other categories than {files[first].name}"
            raise InputError(files[split], what, "use two files of one release")
    later = root / "categories.json"
    if path_kind(later) != "file":
        return names
    value = read_json(later)
    clear = category_names(value["categories"] if _wrapped(value) else value, later)
    if set(clear) != set(names):
        what = f"lists other categories than {files[first].name}"
        raise InputError(later, what, "use the file of the same release, or remove it")
    return clear


def _wrapped(value: object) -> bool:
    """Whether a list of categories stands in an object, as in the files of the splits."""
    return isinstance(value, dict) and "categories" in value


def _check_images(release: Release, root: Path, found: Mapping[str, tuple[Sample, ...]]) -> None:
    """The folders that the listings name must be there; single files are the decoder's business."""
    for samples in found.values():
        folder = root / samples[0].path.split("/", 1)[0]
        if path_kind(folder) is None:
            what = "is missing: it holds the images"
            raise InputError(folder, what, f"unpack the images of {release.source} there")
