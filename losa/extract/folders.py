"""Folders of images or clips: split/class/file, class/file, or files alone, without labels."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from losa.errors import InputError, ResourceError
from losa.extract.annotations import Listed, path_kind, safe_split
from losa.extract.clips.readers import EXTENSIONS as CLIP_EXTENSIONS
from losa.extract.images import EXTENSIONS
from losa.extract.samples import USUAL_SPLITS, Listing

SPLIT_FOLDERS: Final = ("train", "val", "valid", "validation", "test", "dev", "eval")
_FLAT, _CLASSES, _SPLITS = 1, 2, 3
_LAYOUTS: Final = {_CLASSES: "class/file", _SPLITS: "split/class/file"}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FileKind:
    """Files that a folder is looked through for: their endings, and what messages call them."""

    noun: str
    extensions: frozenset[str]
    example: str


IMAGES: Final = FileKind("images", EXTENSIONS, "picture.jpg")
CLIPS: Final = FileKind("clips", CLIP_EXTENSIONS, "clip.mp4")


def list_folder(root: Path, *, named: bool, kind: FileKind = IMAGES) -> Listing:
    """A data set whose folders are its classes, perhaps below folders that are its splits.

    Args:
        root: the folder.
        named: splits were asked for by name, so that their names may be unusual.
        kind: of the files that are looked for.

    Raises:
        InputError: the folder is missing, holds no such files, or mixes layouts.
    """
    if path_kind(root) != "folder":
        raise InputError(root, "is missing or no folder", f"name a folder of {kind.noun}")
    ignored: list[str] = []
    found = [path.split("/") for path in sorted(files_below(root, ignored, kind))]
    deeper = [parts for parts in found if len(parts) > _FLAT]
    if deeper:
        # A picture beside the folders of the classes, such as a preview, belongs to none of them.
        ignored += [parts[0] for parts in found if len(parts) == _FLAT]
        found = deeper
    if ignored:
        log.info(
            "%s: ignored %d hidden files, files that are no %s, or in no class",
            root,
            len(ignored),
            kind.noun,
        )
    depth = _depth(found, root, kind)
    listed = [_listed(parts, depth, root) for parts in found]
    if depth == _SPLITS:
        if not named:
            _check_splits({parts[0] for parts in found}, root, kind)
        _check_filled(root, {item.split for item in listed}, kind)
    elif depth == _CLASSES and not named:
        _check_classes({parts[0] for parts in found}, root, kind)
    # The folder's name and not its path: a store must not depend on where its images lay.
    classes = () if depth == _FLAT else None
    return Listing(f"folder:{root.resolve().name}", root, root, listed, classes)


def files_below(root: Path, ignored: list[str], kind: FileKind = IMAGES) -> Iterator[str]:
    """Paths of files below a folder, relative to it; links are followed, loops are not."""
    return _files_below(root, (), ignored, kind)


def _depth(found: Sequence[Sequence[str]], root: Path, kind: FileKind) -> int:
    """Parts of a path in the layout that all files follow."""
    first: dict[int, Sequence[str]] = {}
    for parts in found:
        first.setdefault(min(len(parts), _SPLITS), parts)
    if len(first) > 1:
        shown = [f"{_LAYOUTS[depth]} ({'/'.join(first[depth])})" for depth in sorted(first)]
        raise InputError(
            root, f"mixes {' and '.join(shown)}", f"use one layout for all {kind.noun}"
        )
    if not first or (_FLAT in first and _has_folders(root)):
        what = f"holds no folders with {kind.noun}"
        todo = f"lay it out as class/{kind.example} or split/class/{kind.example}"
        raise InputError(root, what, todo)
    return next(iter(first))


def _has_folders(root: Path) -> bool:
    """Whether images alone are not all there is: a folder without images was hardly meant."""
    return any(
        entry.is_dir() and not entry.name.startswith(".") for entry in list(os.scandir(root))
    )


def _listed(parts: Sequence[str], depth: int, root: Path) -> Listed:
    path = "/".join(parts)
    if depth == _FLAT:
        return Listed(path, None, None, path)
    if depth == _CLASSES:
        return Listed(path, parts[0], None, path)
    return Listed(path, parts[1], safe_split(parts[0], root, parts[0]), path)


def _check_splits(tops: Collection[str], root: Path, kind: FileKind) -> None:
    """Folders of class/subfolder/file must not pass for splits: one top folder has a usual name."""
    if any(top.lower() in SPLIT_FOLDERS for top in tops):
        return
    shown = ", ".join(repr(top) for top in sorted(tops)[:3]) + (", ..." if len(tops) > 3 else "")  # noqa: PLR2004 -- enough to recognise them
    raise InputError(
        root,
        f"reads as split/class/file, but none of {shown} is a usual name of a split",
        f"rename the splits' folders ({', '.join(SPLIT_FOLDERS)}) or name them with --split; "
        f"if they are classes, move their {kind.noun} up to class/{kind.example}",
    )


def _check_classes(tops: Collection[str], root: Path, kind: FileKind) -> None:
    """Folders of splits that hold files and no classes must not pass for classes."""
    if all(top.lower() in SPLIT_FOLDERS for top in tops):
        shown = ", ".join(repr(top) for top in sorted(tops))
        todo = f"lay them out as split/class/{kind.example}, or list them in a csv: with path,split"
        raise InputError(root, f"reads as class/file, but {shown} are names of splits", todo)


def _check_filled(root: Path, filled: Collection[str | None], kind: FileKind) -> None:
    """A folder of a usual split that holds nothing was hardly meant."""
    for split in USUAL_SPLITS:
        if split not in filled and path_kind(root / split) == "folder":
            raise InputError(root / split, f"holds no {kind.noun}", "fill it, or remove it")


def _files_below(
    root: Path, above: tuple[tuple[int, int], ...], ignored: list[str], kind: FileKind
) -> Iterator[str]:
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
        is_wanted = os.path.splitext(entry.name)[1].lower() in kind.extensions  # noqa: PTH122 -- a plain name
        if entry.name.startswith("."):
            ignored.append(entry.name)
        elif _is_folder(entry, is_wanted=is_wanted):
            for path in _files_below(root / entry.name, (*above, here), ignored, kind):
                yield f"{entry.name}/{path}"
        elif is_wanted:
            yield entry.name
        else:
            ignored.append(entry.name)


def _is_folder(entry: os.DirEntry[str], *, is_wanted: bool) -> bool:
    """Whether files may lie below an entry; a link that leads nowhere is left to the decoder."""
    try:
        return entry.is_dir()
    except OSError as error:
        if is_wanted or error.errno == errno.ELOOP:
            return False
        what = f"cannot be looked at ({error.strerror})"
        raise ResourceError(entry.path, what, "check it") from None
