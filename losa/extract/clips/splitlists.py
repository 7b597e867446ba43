"""UCF101 and HMDB51: three ways each to part their clips into train and test, as text files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from losa.errors import InputError, UsageError
from losa.extract.annotations import Listed, path_kind, safe_path
from losa.extract.clips.placing import Pattern, used_pattern
from losa.extract.clips.tables import list_lines
from losa.extract.samples import Listing

UCF_LAYOUT: Final = "ucfTrainTestlist/{classInd,trainlist01,testlist01}.txt, UCF-101/CLASS/CLIP.avi"
UCF_SOURCE: Final = "https://www.crcv.ucf.edu/data/UCF101.php"
HMDB_LAYOUT: Final = "testTrainMulti_7030_splits/CLASS_test_split1.txt, hmdb51_org/CLASS/CLIP.avi"
HMDB_SOURCE: Final = "https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/"
_NUMBERS: Final = ("1", "2", "3")
_UCF_LISTS: Final = ("ucfTrainTestlist", "annotations", "")
_UCF_VIDEOS: Final = ("UCF-101/", "videos/", "")
_HMDB_LISTS: Final = ("testTrainMulti_7030_splits", "annotations", "")
_HMDB_VIDEOS: Final = ("hmdb51_org/", "videos/", "")
_HMDB_SPLITS: Final = {"1": "train", "2": "test"}
_HMDB_ENDING: Final = "_test_split"


def list_ucf101(root: Path, which: str) -> Listing:
    """Clips by one of three lists: ``Class/clip.avi 1`` to train on, ``Class/clip.avi`` to test.

    Raises:
        UsageError: there is no list of that number.
        InputError: the files are missing or damaged, or no video is here.
    """
    number = _number(which, "ucf101")
    folder = _folder(root, _UCF_LISTS, "classInd.txt")
    if folder is None:
        raise InputError(root / _UCF_LISTS[0] / "classInd.txt", "is missing", UCF_LAYOUT)
    classes = _ucf_classes(folder / "classInd.txt")
    lines = []
    for split in ("train", "test"):
        file = folder / f"{split}list0{number}.txt"
        for where, line in list_lines(file):
            path = safe_path(line.split()[0], file, where)
            label = path.partition("/")[0]
            if label not in classes:
                raise InputError(file, f"{where}: {label!r} is no class", "fetch it again")
            lines.append(Listed(path, label, split, f"{file.name} {where}", key=path))
    return _placed(root, lines, _UCF_VIDEOS, classes)


def list_hmdb51(root: Path, which: str) -> Listing:
    """Clips by one of three lists: ``clip.avi 1`` to train on, 2 to test, 0 for neither.

    Raises:
        UsageError: there is no list of that number.
        InputError: the files are missing or damaged, or no video is here.
    """
    number = _number(which, "hmdb51")
    ending = f"{_HMDB_ENDING}{number}.txt"
    found: list[Path] = []
    for name in _HMDB_LISTS:
        if path_kind(root / name) == "folder":
            found = found or sorted((root / name).glob(f"*{ending}"))
    if not found:
        raise InputError(root / _HMDB_LISTS[0], "is missing", f"lay out {HMDB_LAYOUT}")
    lines = []
    for file in found:
        label = file.name.removesuffix(ending)
        for where, line in list_lines(file):
            clip, _, mark = line.rpartition(" ")
            if mark not in ("0", *_HMDB_SPLITS):
                raise InputError(file, f"{where}: ends with {mark[:20]!r}", "fetch it again")
            path = safe_path(f"{label}/{clip.strip()}", file, where)
            if mark in _HMDB_SPLITS:
                place = f"{file.name} {where}"
                lines.append(Listed(path, label, _HMDB_SPLITS[mark], place, key=path))
    return _placed(root, lines, _HMDB_VIDEOS, None)


def _number(which: str, name: str) -> str:
    if (which or "1") not in _NUMBERS:
        what = f"{name} has no split {which!r}"
        raise UsageError("--dataset", what, f"use {name}, {name}:2 or {name}:3")
    return which or "1"


def _folder(root: Path, names: Sequence[str], file: str) -> Path | None:
    return next((root / name for name in names if path_kind(root / name / file)), None)


def _ucf_classes(file: Path) -> tuple[str, ...]:
    """Class names in the order of their numbers."""
    numbered = {}
    for where, line in list_lines(file):
        number, _, name = line.partition(" ")
        if not number.isdecimal() or not name.strip():
            raise InputError(file, f"{where}: is no number and class", "fetch the file again")
        numbered[int(number)] = name.strip()
    return tuple(numbered[number] for number in sorted(numbered))


def _placed(
    root: Path, lines: Sequence[Listed], folders: Sequence[str], classes: tuple[str, ...] | None
) -> Listing:
    """The lines with the folder that their videos lie in."""

    def named(folder: str) -> Pattern[Listed]:
        return lambda item: f"{folder}{item.path}"

    pattern = used_pattern(root, lines, [named(folder) for folder in folders])
    listed = [
        Listed(pattern(item), item.label, item.split, item.where, key=item.key) for item in lines
    ]
    return Listing("", root, root, listed, classes)
