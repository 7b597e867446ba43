"""Where the videos of a listing lie: of the usual ways to name their files, the one that is used.

Many a listed video is gone from where it was published. Those too are given the path that they
would have, so that a listing does not depend on which of its videos are here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol, TypeVar, runtime_checkable

from losa.errors import InputError


@runtime_checkable
class HasSplit(Protocol):
    """A line of a listing; each split's videos may be laid out in their own way."""

    @property
    def split(self) -> str | None:
        """The split that it belongs to."""
        ...


Named = TypeVar("Named", bound=HasSplit)
Pattern = Callable[[Named], str]
"""The path below the root that a line's video would have."""

TRIED: Final = 512
"""Lines of a split whose files are looked for at once, spread over it."""


def used_pattern(
    root: Path, lines: Sequence[Named], patterns: Sequence[Pattern[Named]]
) -> Pattern[Named]:
    """The pattern by which most files of a line's split are here; of equal ones the first.

    A split without any file is named as most files of the others are.

    Args:
        root: the folder that paths lie below.
        lines: of the listing.
        patterns: ways to name a file.

    Raises:
        InputError: no file of any line is here by any of them.
    """
    if not lines:
        return patterns[0]
    hits = _hits(root, lines, patterns)
    together = [sum(counts) for counts in zip(*hits.values(), strict=True)]
    if not any(together):
        shown = " or ".join(pattern(lines[0]) for pattern in patterns[:2])
        what = f"holds none of {len(lines)} listed videos"
        raise InputError(root, what, f"put them there, such as {shown}")
    used = {
        split: patterns[_most(counts if any(counts) else together)]
        for split, counts in hits.items()
    }
    return lambda line: used[line.split](line)


def _hits(
    root: Path, lines: Sequence[Named], patterns: Sequence[Pattern[Named]]
) -> Mapping[str | None, list[int]]:
    """How many of some lines of each split are here by each pattern; none only if no line is."""
    splits: dict[str | None, list[Named]] = defaultdict(list)
    for line in lines:
        splits[line.split].append(line)
    folders = _Folders(root)
    return {split: _hits_of_split(folders, own, patterns) for split, own in splits.items()}


def _hits_of_split(
    folders: _Folders, lines: Sequence[Named], patterns: Sequence[Pattern[Named]]
) -> list[int]:
    found = [0] * len(patterns)
    left = list(enumerate(patterns))
    for number, some in enumerate(_samples(lines)):
        for at, pattern in left:
            found[at] = sum(folders.has(pattern(line)) for line in some)
        if any(found):
            break
        if number == 0:
            # Ways whose folders are not here, or hold nothing of the kind, would cost a minute of
            # a long listing.
            left = [(at, pattern) for at, pattern in left if _is_possible(folders, lines, pattern)]
    return found


def _is_possible(folders: _Folders, lines: Sequence[Named], pattern: Pattern[Named]) -> bool:
    """Whether any folder of the lines has a file with their ending."""
    asked: dict[tuple[str, str], str] = {}
    for path in map(pattern, lines):
        asked.setdefault((path.rpartition("/")[0], ending_of(path)), path)
    return any(map(folders.has_kind, asked.values()))


def _samples(lines: Sequence[Named]) -> Iterator[Sequence[Named]]:
    """All lines, some at a time, each time spread over all of them."""
    step = max(1, -(-len(lines) // TRIED))
    for first in range(step):
        yield lines[first::step]


class _Folders:
    """What lies below a root; each folder is read once, however many files are looked for in it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names: dict[str, frozenset[str]] = {}

    def has(self, path: str) -> bool:
        """Whether a file of that path is here."""
        folder, _, name = path.rpartition("/")
        return name in self._names_of(folder) and (self._root / path).is_file()

    def has_kind(self, path: str) -> bool:
        """Whether the file's folder has one with the same ending."""
        folder, ending = path.rpartition("/")[0], ending_of(path)
        return any(other.endswith(ending) for other in self._names_of(folder))

    def _names_of(self, folder: str) -> frozenset[str]:
        if folder not in self._names:
            self._names[folder] = _names_in(self._root / folder)
        return self._names[folder]


def ending_of(path: str) -> str:
    """A file name's ending with its dot.

    Example:
        >>> ending_of("train/a.b/c.mp4")
        '.mp4'
    """
    name = path.rpartition("/")[2]
    return name[name.rfind(".") :]


def _names_in(folder: Path) -> frozenset[str]:
    try:
        return frozenset(entry.name for entry in folder.iterdir())
    except (OSError, ValueError):
        return frozenset()


def _most(counts: Sequence[int]) -> int:
    return counts.index(max(counts))
