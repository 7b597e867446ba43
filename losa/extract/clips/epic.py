"""EPIC-KITCHENS: actions are parts of long videos, with the class of a verb and of a noun.

Source: ``EPIC_100_train.csv`` and its siblings, of the release's annotations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from losa.errors import InputError, UsageError
from losa.extract.annotations import Listed, safe_path
from losa.extract.clips.placing import Pattern, used_pattern
from losa.extract.clips.tables import first_file, number_of, table_rows
from losa.extract.media import Media, Span
from losa.extract.samples import Listing

LAYOUT: Final = "EPIC_100_{train,validation,verb_classes,noun_classes}.csv, P01/videos/P01_01.MP4"
SOURCE: Final = "https://epic-kitchens.github.io"
LABELS: Final = ("action", "verb", "noun")
_FILES: Final = {
    "train": ("EPIC_100_train.csv", "EPIC_train_action_labels.csv", "train.csv"),
    "val": ("EPIC_100_validation.csv", "validation.csv"),
    "test": ("EPIC_100_test_timestamps.csv",),
}
_TIMES: Final = ("start_timestamp", "stop_timestamp")
_FRAMES: Final = ("start_frame", "stop_frame")
_FOLDERS: Final = (
    *("{person}/videos/", "EPIC-KITCHENS/{person}/videos/", "videos/{person}/", "videos/"),
    *("{person}/", ""),
)
_ENDINGS: Final = ("MP4", "mp4")


@dataclass(frozen=True, slots=True)
class _Action:
    """One line: a part of a video, and its classes."""

    key: str
    video: str
    person: str
    span: Span
    label: str | None
    split: str
    where: str


def list_epic(root: Path, which: str) -> Listing:
    """The actions of the release, labelled by ``action`` (verb and noun), ``verb`` or ``noun``.

    Raises:
        UsageError: there is no such label.
        InputError: the files are missing or damaged, or no video is here.
    """
    kind = which or "action"
    if kind not in LABELS:
        raise UsageError("--dataset", f"epic has no label {which!r}", f"use one of {LABELS}")
    names = {one: _class_names(root, one) for one in ("verb", "noun")}
    actions = []
    for split, stems in _FILES.items():
        file = first_file(root, [f"annotations/{stem}" for stem in stems] + list(stems))
        if file is not None:
            actions += _actions(file, split, kind, names)
    if not actions:
        raise InputError(root / _FILES["train"][0], "is missing", f"lay out {LAYOUT}")
    pattern = used_pattern(root, actions, _patterns())
    listed, pieces = [], {}
    for action in actions:
        video = safe_path(pattern(action), root, action.where)
        path = f"{video}#{action.key}"
        listed.append(Listed(path, action.label, action.split, action.where, key=action.key))
        pieces[path] = Media(root / video, span=action.span)
    return Listing("", root, root, listed, None, pieces)


def _actions(
    file: Path, split: str, kind: str, names: Mapping[str, Mapping[str, str]]
) -> list[_Action]:
    found = []
    for where, fields in table_rows(file, ("narration_id", "participant_id", "video_id")):
        found.append(
            _Action(
                key=safe_path(fields["narration_id"], file, where),
                video=fields["video_id"],
                person=fields["participant_id"],
                span=_span(fields, file, where),
                label=_label(fields, kind, names),
                split=split,
                where=f"{file.name} {where}",
            )
        )
    return found


def _span(fields: Mapping[str, str], file: Path, where: str) -> Span:
    """The part of a video by its times, which other frame rates do not move, else by its frames."""
    if set(_TIMES) <= set(fields):
        start, stop = (seconds_of(fields[name], file, where) for name in _TIMES)
        span = Span(start, stop)
    elif set(_FRAMES) <= set(fields):
        first, last = (number_of(fields[name], file, where, name) for name in _FRAMES)
        # The release counts frames from 1, and names the last of them.
        span = Span(max(0.0, first - 1), last, "frames")
    else:
        what = f"line 1: has no columns {' and '.join(_TIMES)}"
        raise InputError(file, what, "use the annotation file of the release")
    if span.stop <= span.start:
        what = f"{where}: ends at {span.stop:g}, and begins at {span.start:g} {span.unit}"
        raise InputError(file, what, "mend the file")
    return span


def seconds_of(text: str, file: Path, where: str) -> float:
    """Seconds of a time such as 00:01:02.500.

    Raises:
        InputError: it is none.

    Example:
        >>> seconds_of("00:01:02.500", Path("list.csv"), "line 2")
        62.5
    """
    parts = text.split(":")
    if len(parts) != 3:  # noqa: PLR2004 -- hours, minutes, seconds
        raise InputError(file, f"{where}: {text[:40]!r} is no time", "write it as 00:01:02.500")
    hours, minutes, seconds = (number_of(part, file, where, "a time") for part in parts)
    return 3600 * hours + 60 * minutes + seconds


def _label(
    fields: Mapping[str, str], kind: str, names: Mapping[str, Mapping[str, str]]
) -> str | None:
    """The class of an action; test actions have none."""
    parts = []
    for one in ("verb", "noun"):
        number = fields.get(f"{one}_class", "")
        if kind in (one, "action"):
            if not number:
                return None
            parts.append(names[one].get(number, number))
    return " ".join(parts)


def _class_names(root: Path, kind: str) -> dict[str, str]:
    """Names of classes by their numbers, if the release's file of them is here."""
    stems = (f"EPIC_100_{kind}_classes.csv", f"EPIC_{kind}_classes.csv")
    file = first_file(root, [f"annotations/{stem}" for stem in stems] + list(stems))
    if file is None:
        return {}
    found = {}
    for _, fields in table_rows(file, ()):
        number = fields.get("id") or fields.get(f"{kind}_id") or ""
        found[number] = fields.get("key") or fields.get("class_key") or number
    return found


def _patterns() -> Sequence[Pattern[_Action]]:
    def named(folder: str, ending: str) -> Pattern[_Action]:
        return lambda item: f"{folder.format(person=item.person)}{item.video}.{ending}"

    return [named(folder, ending) for ending in _ENDINGS for folder in _FOLDERS]
