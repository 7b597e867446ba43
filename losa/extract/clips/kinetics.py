"""Kinetics: clips of ten seconds from the CSV files of its releases, or lists of path and label.

Source: the releases' files ``label,youtube_id,time_start,time_end,split``; clips are called
``ID_000001_000011.mp4`` by those who distribute them, flat or in folders of their classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from losa.errors import InputError
from losa.extract.annotations import Listed, safe_path
from losa.extract.clips.placing import Pattern, used_pattern
from losa.extract.clips.tables import first_file, list_lines, number_of, table_rows
from losa.extract.samples import Listing

LAYOUT: Final = "annotations/{train,val,test}.csv, {train,val,test}/CLASS/ID_000001_000011.mp4"
SOURCE: Final = "https://github.com/cvdfoundation/kinetics-dataset"
_SPLITS: Final = {"train": ("train",), "val": ("val", "validate", "validation"), "test": ("test",)}
_NEEDED: Final = ("youtube_id", "time_start", "time_end")
_ENDINGS: Final = ("mp4", "mkv", "webm")


@dataclass(frozen=True, slots=True)
class _Line:
    """A clip of a CSV file: which video, from when to when in seconds, and its class if it says."""

    split: str
    video: str
    start: int
    stop: int
    label: str | None
    where: str

    @property
    def key(self) -> str:
        """What distributors call the clip."""
        return f"{self.video}_{self.start:06d}_{self.stop:06d}"


def list_kinetics(root: Path) -> Listing:
    """The clips of a release whose annotation files lie in its folder, or in ``annotations``.

    Raises:
        InputError: the files are missing or damaged, or no video is here.
    """
    files = {split: _file_of(root, split) for split in _SPLITS}
    there = {split: file for split, file in files.items() if file is not None}
    if not there:
        raise InputError(root / "annotations" / "train.csv", "is missing", f"lay out {LAYOUT}")
    tables = {split: file for split, file in there.items() if _is_table(file)}
    lines = [line for split, file in tables.items() for line in _lines(file, split)]
    listed = [
        item for split in there.keys() - tables.keys() for item in _paths(there[split], split)
    ]
    if lines:
        pattern = used_pattern(root, lines, _patterns())
        listed += [_listed(line, pattern, there[line.split]) for line in lines]
    listed.sort(key=lambda item: list(_SPLITS).index(item.split or ""))
    return Listing("", root, root, listed)


def _file_of(root: Path, split: str) -> Path | None:
    stems = [f"{name}.csv" for name in _SPLITS[split]]
    stems += [f"{name}.txt" for name in _SPLITS[split]]
    stems += [f"{root.name}_{name}.csv" for name in _SPLITS[split]]
    lists = [f"kinetics{size}_{split}_list_videos.txt" for size in (400, 600)]
    names = [*stems, *lists]
    return first_file(root, [f"annotations/{name}" for name in names] + names)


def _is_table(file: Path) -> bool:
    """Whether it is a CSV file of a release, and no list of paths and labels."""
    first = next(list_lines(file), ("", ""))[1]
    return set(_NEEDED) <= {name.strip() for name in first.split(",")}


def _lines(file: Path, split: str) -> list[_Line]:
    return [
        _Line(
            split=split,
            video=fields["youtube_id"],
            start=int(number_of(fields["time_start"], file, where, "time_start")),
            stop=int(number_of(fields["time_end"], file, where, "time_end")),
            label=fields.get("label") or None,
            where=f"{file.name} {where}",
        )
        for where, fields in table_rows(file, _NEEDED)
    ]


def _patterns() -> Sequence[Pattern[_Line]]:
    """The ways that clips are laid out, with each ending."""

    def named(folder: str, stem: str, ending: str) -> Pattern[_Line]:
        def path(line: _Line) -> str:
            label = line.label or "test"
            found = folder.format(split=line.split, label=label, plain=label.replace(" ", "_"))
            return f"{found}{stem.format(key=line.key, video=line.video)}.{ending}"

        return path

    tops = ("{split}/", "", "videos/{split}/", "videos/")
    folders = [top + below for top in tops for below in ("{label}/", "{plain}/", "")]
    stems = ("{key}", "{video}")
    return [
        named(folder, stem, ending) for ending in _ENDINGS for stem in stems for folder in folders
    ]


def _listed(line: _Line, pattern: Pattern[_Line], file: Path) -> Listed:
    path = safe_path(pattern(line), file, line.where)
    return Listed(path, line.label, line.split, line.where, key=line.key)


def _paths(file: Path, split: str) -> list[Listed]:
    """Lines of ``path label``, parted by the last space or comma."""
    found = []
    for where, line in list_lines(file):
        path, gap, label = line.rpartition("," if "," in line else " ")
        if not gap or not label.strip().isdecimal():
            what = f"{where}: {line[:40]!r} is no path with the number of its class"
            raise InputError(file, what, "write lines such as class/clip.mp4 17")
        place = f"{file.name} {where}"
        found.append(Listed(safe_path(path.strip(), file, where), label.strip(), split, place))
    return found
