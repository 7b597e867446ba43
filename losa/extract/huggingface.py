"""Data sets of the library ``datasets``: each image's encoded bytes where they lie in Arrow files.

The library prepares or opens the files; rows are then read without it. No code of a data set is
run: the versions that losa asks for have no scripts.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from losa.errors import InputError, UsageError
from losa.extract.annotations import Listed, path_kind, read_json, safe_path, safe_split
from losa.extract.arrow import ImageCell, image_cells
from losa.extract.media import Media
from losa.extract.samples import Listing

if TYPE_CHECKING:
    import datasets

_MARKS: Final = ("dataset_dict.json", "state.json")
"""Files by which a folder of ``save_to_disk`` is known."""

_NO_SCRIPTS_SINCE: Final = 4
"""Major version of the library from which on it runs no code of a data set."""

log = logging.getLogger(__name__)


_LABEL: Final = "?label="
"""Stands between a data set and the column whose labels are wanted."""


@dataclass(frozen=True, slots=True)
class _Labels:
    """The column of labels, the class names it fixes, and whether a row has several."""

    column: str | None = None
    names: tuple[str, ...] | None = None
    several: bool = False


def list_rows(text: str, splits: tuple[str, ...] | None) -> Listing:
    """The rows of a data set of the hub, or of a folder that ``save_to_disk`` wrote.

    Args:
        text: a folder, or a name on the hub, perhaps with ``:`` and a configuration; then perhaps
            ``?label=`` and the name of a column.
        splits: splits to list; ``None`` lists all.

    Raises:
        UsageError: the library is not installed; no column stands behind ``?label=``.
        InputError: the data set is missing, or its rows are not one image each.
    """
    options = hub_options(text)
    if options == _LABEL:
        what = f"{text} names no column behind {_LABEL}"
        raise UsageError("--dataset", what, "name the column of labels, or leave it away")
    text, column = text.removesuffix(options), options.removeprefix(_LABEL) or None
    folder = Path(text) if path_kind(Path(text)) == "folder" else None
    if folder is None and text.startswith(("/", ".", "~")):
        raise InputError(text, "is missing or no folder", "name a folder of save_to_disk")
    found = _saved(folder) if folder is not None else _of_hub(text)
    name = f"hf:{text if folder is None else folder.resolve().name}{options}"
    source = folder or Path(text)
    lines: list[Listed] = []
    pieces: dict[str, Media] = {}
    classes: set[tuple[str, ...] | None] = set()
    for split, table in found.items():
        safe = None if split is None else safe_split(split, source, "the data set")
        labels = _labels(table, source, column)
        classes.add(labels.names)
        rows = _Rows(table, safe, labels, source)
        # Of every split: a class's number must not depend on which splits were asked for.
        lines += rows.lines()
        if splits is None or safe is None or safe in splits:
            pieces.update(rows.pieces(folder))
    if len(classes) > 1:
        raise InputError(source, "its splits have different class names", "save it with one list")
    return Listing(name, source, source, lines, classes.pop(), pieces)


def hub_options(text: str) -> str:
    """The end of a data set's name that says which column holds its labels.

    Example:
        >>> hub_options("cifar100?label=coarse_label"), hub_options("mnist:mnist")
        ('?label=coarse_label', '')
    """
    _, mark, column = text.partition(_LABEL)
    return mark + column


class _Rows:
    """The rows of one split."""

    def __init__(
        self, table: datasets.Dataset, split: str | None, labels: _Labels, source: Path
    ) -> None:
        self._table = table
        self._prefix = split or "all"
        self._split = split
        self._labels = labels
        self._source = source

    def _path(self, row: int) -> str:
        return f"{self._prefix}/{row:08d}"

    def lines(self) -> list[Listed]:
        """Every row with its label; a row's number in its split is its key."""
        if self._labels.column is None:
            values: list[Any] = [None] * len(self._table)
        else:
            column = self._labels.column
            values = (
                self._table.select_columns([column]).with_format("arrow")[:][column].to_pylist()
            )
        return [self._line(row, value) for row, value in enumerate(values)]

    def _line(self, row: int, value: Any) -> Listed:
        path = self._path(row)
        if not self._labels.several:
            return Listed(path, self._name(value, path), self._split, path)
        names = [self._name(item, path) for item in value or ()]
        if None in names:
            raise InputError(self._source, f"{path}: a label is none of the classes", "mend it")
        labels = tuple(dict.fromkeys(name for name in names if name is not None))
        return Listed(path, None, self._split, path, labels)

    def _name(self, value: Any, path: str) -> str | None:
        """A class's name; -1 and nothing stand for no label, as in the test splits of the hub."""
        names = self._labels.names
        if value is None or value == -1:
            return None
        if isinstance(value, str) and value and names is None:
            return value
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        if not whole or (names is not None and value >= len(names)):
            what = f"{path}: label {value!r} is neither a name nor a class's number"
            raise InputError(self._source, what, "mend the column of labels")
        return str(value) if names is None else names[value]

    def pieces(self, folder: Path | None) -> dict[str, Media]:
        """Where every row's image lies."""
        column = _image_column(self._table, self._source)
        cells = image_cells(self._table, column, self._source)
        return {
            self._path(row): self._media(cell, folder, self._path(row))
            for row, cell in enumerate(cells)
        }

    def _media(self, cell: ImageCell, folder: Path | None, where: str) -> Media:
        if cell.size is not None:
            return Media(cell.file, cell.offset, cell.size)
        name = cell.name or ""
        if not name:
            return Media(cell.file, 0, 0)  # nothing: whoever decodes it says so
        if Path(name).is_absolute() and "::" not in name:
            if folder is not None and not Path(name).resolve().is_relative_to(folder.resolve()):
                what = f"{where}: image {name!r} lies outside of the folder"
                raise InputError(self._source, what, "save the data set with its images")
            return Media(Path(name))
        if folder is None:
            what = f"{where}: image {name!r} is neither stored nor a file of this machine"
            raise InputError(self._source, what, "save the data set with its images")
        return Media(folder / safe_path(name, self._source, where))


def _library() -> Any:
    """The library, if it is installed."""
    try:
        import datasets
    except ImportError:
        what = "hf: needs the library datasets, which is not installed"
        raise UsageError("--dataset", what, "pip install 'losa[hub]'") from None
    major = datasets.__version__.partition(".")[0]
    if not major.isdecimal() or int(major) < _NO_SCRIPTS_SINCE:
        what = f"datasets {datasets.__version__} may run scripts of data sets"
        raise UsageError("--dataset", what, "pip install 'losa[hub]'")
    return datasets


def _saved(folder: Path) -> Mapping[str | None, datasets.Dataset]:
    """Splits of a saved folder; one that was saved alone is nameless."""
    library = _library()
    if not any((folder / mark).is_file() for mark in _MARKS):
        what = f"is no folder of save_to_disk (no {' and no '.join(_MARKS)})"
        raise InputError(folder, what, "save the data set with save_to_disk, or use folder:PATH")
    for state in (folder / "state.json", *folder.glob("*/state.json")):
        if state.is_file() and read_json(state, keep=("_indices_data_files",)):
            what = "orders its rows by an index file, which newer libraries do not read"
            raise InputError(state, what, "save the data set again with a newer library")
    found = _opened(lambda: library.load_from_disk(str(folder), keep_in_memory=False), folder)
    splits = found if isinstance(found, library.DatasetDict) else {None: found}
    for table in splits.values():
        for item in table.cache_files:
            if not Path(item["filename"]).resolve().is_relative_to(folder.resolve()):
                what = f"names a file outside of it: {item['filename']!r}"
                raise InputError(folder, what, "save the data set again")
    return splits


def _of_hub(text: str) -> Mapping[str | None, datasets.Dataset]:
    """Splits of a data set of the hub, fetched and prepared by the library in its own cache."""
    library = _library()
    name, _, config = text.partition(":")
    found = _opened(
        lambda: library.load_dataset(name, config or None, keep_in_memory=False), Path(text)
    )
    return dict(found)


def _opened(load: Any, source: Path) -> Any:
    """What the library opens; its many errors are one line."""
    try:
        return load()
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        what = f"cannot be opened by datasets ({said})"
        raise InputError(
            source, what, "check the name, the configuration and the network"
        ) from None


def _image_column(table: datasets.Dataset, source: Path) -> str:
    """The column of images: the only one, or the one called image."""
    library = _library()
    names = [name for name, kind in table.features.items() if isinstance(kind, library.Image)]
    if len(names) > 1 and "image" in names:
        return "image"
    if len(names) != 1:
        have = f"{len(names)} columns of images ({', '.join(names)})" if names else "no images"
        raise InputError(source, f"has {have}", "keep one column of the type Image, named image")
    return str(names[0])


def _labels(table: datasets.Dataset, source: Path, asked: str | None) -> _Labels:
    """The column asked for, or called as usual, or the only one whose type is ClassLabel.

    Raises:
        UsageError: there is no such column.
        InputError: several may be meant, or the column holds no labels.
    """
    library = _library()
    kinds = {name: _inner(kind) for name, kind in table.features.items()}
    named = [name for name in ("label", "labels") if name in kinds]
    typed = [name for name, (kind, _) in kinds.items() if isinstance(kind, library.ClassLabel)]
    chosen = [asked] if asked is not None else named or typed
    if not chosen:
        return _Labels()
    if len(chosen) > 1:
        what = f"has several columns of labels ({', '.join(chosen)})"
        raise InputError(source, what, f"say which, as in 'hf:{source}{_LABEL}{chosen[0]}'")
    if chosen[0] not in kinds:
        what = f"{source} has no column {chosen[0]!r}"
        raise UsageError("--dataset", what, f"use one of {', '.join(typed or kinds)}")
    kind, several = kinds[chosen[0]]
    if isinstance(kind, library.ClassLabel):
        return _Labels(chosen[0], tuple(kind.names), several)
    if getattr(kind, "dtype", "") not in (
        "string",
        "large_string",
        "int8",
        "int16",
        "int32",
        "int64",
    ):
        what = f"column {chosen[0]} holds {kind}, which is no label"
        raise InputError(source, what, "use names or whole numbers")
    return _Labels(chosen[0], None, several)


def _inner(kind: Any) -> tuple[Any, bool]:
    """A column's type, or that of its lists' items."""
    if isinstance(kind, list):
        return kind[0], True
    inner = getattr(kind, "feature", None)
    return (kind, False) if inner is None else (inner, True)
