"""The known data sets of clips: where they are looked for, and what reads their annotations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from losa.errors import InputError, UsageError
from losa.extract.annotations import path_kind
from losa.extract.clips import epic, kinetics, something, splitlists
from losa.extract.samples import Listing


@dataclass(frozen=True, slots=True)
class ClipSet:
    """One data set: its folders below the data folder (the first there counts), its reader.

    The reader is given the folder, and what stands behind the name and a colon.
    """

    folders: tuple[str, ...]
    layout: str
    source: str
    read: Callable[[Path, str], Listing]


def list_clip_set(text: str, data_dir: Path) -> Listing:
    """The clips of a known data set; those of its videos that are not here are listed too.

    Raises:
        UsageError: the data set has no such form.
        InputError: it is missing, or not laid out as it should be.
    """
    name, _, which = text.partition(":")
    known = SETS[name]
    for folder in known.folders:
        if path_kind(data_dir / folder) == "folder":
            return replace(known.read(data_dir / folder, which), name=text)
    todo = f"put it there ({known.layout}), or name its folder's folder with --data-dir"
    raise InputError(data_dir / known.folders[0], "is missing", todo)


def _kinetics(root: Path, which: str) -> Listing:
    if which:
        what = f"Kinetics has no form {which!r}"
        raise UsageError("--dataset", what, "write k400 or k600 alone")
    return kinetics.list_kinetics(root)


def _something(root: Path, which: str) -> Listing:
    if which:
        raise UsageError("--dataset", f"ssv2 has no form {which!r}", "write ssv2 alone")
    return something.list_something(root)


SETS: Final[Mapping[str, ClipSet]] = {
    "k400": ClipSet(
        ("k400", "kinetics400", "kinetics-400"), kinetics.LAYOUT, kinetics.SOURCE, _kinetics
    ),
    "k600": ClipSet(
        ("k600", "kinetics600", "kinetics-600"), kinetics.LAYOUT, kinetics.SOURCE, _kinetics
    ),
    "ssv2": ClipSet(
        ("ssv2", "something-something-v2"), something.LAYOUT, something.SOURCE, _something
    ),
    "ucf101": ClipSet(
        ("ucf101", "UCF101"), splitlists.UCF_LAYOUT, splitlists.UCF_SOURCE, splitlists.list_ucf101
    ),
    "hmdb51": ClipSet(
        *(("hmdb51", "HMDB51"), splitlists.HMDB_LAYOUT, splitlists.HMDB_SOURCE),
        splitlists.list_hmdb51,
    ),
    "epic": ClipSet(
        ("epic", "EPIC-KITCHENS", "epic-kitchens"), epic.LAYOUT, epic.SOURCE, epic.list_epic
    ),
}
