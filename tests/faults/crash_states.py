"""What a disk may hold after a power cut: a model of what is synced and what is not.

A file's bytes survive when the file was synced, a name when its folder was. What was not synced may
be there, be lost, or be there in part, each thing for itself: no order is taken for granted.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from tests.faults.crash_system import Act

Image = dict[str, bytes | None]
"""Content of every file by its path; ``None`` for a folder."""

BLOCKS: Final = (16, 64, 4096)
"""Bytes that a disk writes at once; the files of the tests are so small that 4 KiB are all."""


@dataclass(slots=True)
class File:
    """A file's bytes now, and those that are synced."""

    content: bytes = b""
    synced: bytes = b""


@dataclass(slots=True)
class Folder:
    """A folder's names now, those that are synced, and what unsynced names stood for since."""

    names: dict[str, Node] = field(default_factory=dict)
    synced: dict[str, Node] = field(default_factory=dict)
    since: dict[str, list[Node | None]] = field(default_factory=dict)

    def put(self, name: str, node: Node | None) -> None:
        """Let a name stand for something else, or for nothing."""
        self.since.setdefault(name, [self.synced.get(name)]).append(node)
        if node is None:
            self.names.pop(name, None)
        else:
            self.names[name] = node

    def sync(self) -> None:
        """Make the names survive."""
        self.synced, self.since = dict(self.names), {}


Node = File | Folder


class Disk:
    """Plays acts back."""

    def __init__(self) -> None:
        self.root = Folder()
        self._files: dict[int, File] = {}

    def apply(self, act: Act) -> None:
        """Do one act; a promise is none."""
        match act.kind:
            case "create":
                self._files[act.file] = File()
                self._put(act.path, self._files[act.file])
            case "write":
                self._files[act.file].content += act.data
            case "fsync":
                self._sync(self._files[act.file])
            case "sync":
                self._sync(self._find(act.path))
            case _:
                self._name(act)

    def _name(self, act: Act) -> None:
        """Do an act that is about names alone."""
        match act.kind:
            case "mkdir":
                self._put(act.path, Folder())
            case "link":
                self._put(act.target, self._find(act.path))
            case "unlink":
                self._put(act.path, None)
            case "rename":
                node = self._find(act.path)
                self._put(act.path, None)
                self._put(act.target, node)

    def _sync(self, node: Node) -> None:
        if isinstance(node, File):
            node.synced = node.content
        else:
            node.sync()

    def _find(self, path: str) -> Node:
        node: Node = self.root
        for part in path.split("/") if path else []:
            assert isinstance(node, Folder)
            node = node.names[part]
        return node

    def _put(self, path: str, node: Node | None) -> None:
        above, _, name = path.rpartition("/")
        folder = self._find(above)
        assert isinstance(folder, Folder)
        folder.put(name, node)


class Fate(Protocol):
    """Decides what of a disk survives."""

    def name(self, folder: Folder, name: str) -> Node | None:
        """What a name stands for afterwards."""
        ...

    def content(self, file: File) -> bytes:
        """What a file holds afterwards."""
        ...


class NothingSurvives:
    """Only what was synced is there."""

    def name(self, folder: Folder, name: str) -> Node | None:
        return folder.synced.get(name)

    def content(self, file: File) -> bytes:
        return file.synced


class NamesSurvive:
    """Every name is there; bytes that were not synced are lost, or torn where a block ends.

    ``keep`` is the part of the unsynced bytes that is there. The rest is missing or, where the disk
    knew the file's new size already, ``zeros``.
    """

    def __init__(self, keep: float, block: int, *, zeros: bool) -> None:
        self._keep, self._block, self._zeros = keep, block, zeros

    def name(self, folder: Folder, name: str) -> Node | None:
        return folder.names.get(name)

    def content(self, file: File) -> bytes:
        return torn(file, self._keep, self._block, zeros=self._zeros)


class ChanceDecides:
    """Every unsynced name and every unsynced block of a file survives or not, each for itself."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def name(self, folder: Folder, name: str) -> Node | None:
        values = folder.since.get(name) or [folder.synced.get(name)]
        return self._random.choice(values)

    def content(self, file: File) -> bytes:
        if file.content == file.synced or self._random.random() < 0.5:
            return file.content
        keep, block = self._random.random(), self._random.choice(BLOCKS)
        return torn(file, keep, block, zeros=self._random.random() < 0.5)


def torn(file: File, keep: float, block: int, *, zeros: bool) -> bytes:
    """A file of whose unsynced bytes only a part is there, up to the end of a block."""
    fresh = len(file.content) - len(file.synced)
    stop = len(file.synced) + int(fresh * keep) // block * block
    return file.content[:stop] + bytes(len(file.content) - stop if zeros else 0)


FATES: Final[Sequence[Fate]] = (
    NothingSurvives(),
    NamesSurvive(0, 1, zeros=False),
    NamesSurvive(0, 1, zeros=True),
    NamesSurvive(1, 1, zeros=True),
    *(NamesSurvive(0.7, block, zeros=zeros) for block in BLOCKS for zeros in (False, True)),
)


@dataclass(frozen=True, slots=True)
class State:
    """What is on the disk after a power cut, and which names had been promised before."""

    image: Image
    promised: frozenset[str]
    acts: int


def crash_states(acts: Sequence[Act], *, chances: int, first: int = 0) -> Iterator[State]:
    """Every distinct state after every beginning of a record that has ``first`` acts or more.

    ``chances`` is how many seeded random fates there are beside the fixed ones.
    """
    disk, promised, seen = Disk(), set[str](), set[bytes]()
    for number, act in enumerate(acts, 1):
        disk.apply(act)
        if act.kind == "promise":
            promised.add(act.path)
        if number < first:
            continue
        dice = [ChanceDecides(f"{number} {chance}") for chance in range(chances)]
        for fate in (*FATES, *dice):
            state = State(survivors(disk, fate), frozenset(promised), number)
            digest = digest_of(state)
            if digest not in seen:
                seen.add(digest)
                yield state


def survivors(disk: Disk, fate: Fate) -> Image:
    """The files and folders that are there after a power cut."""
    image: Image = {}
    _collect(disk.root, "", fate, image, set())
    return image


def _collect(folder: Folder, prefix: str, fate: Fate, image: Image, seen: set[int]) -> None:
    for name in sorted({*folder.names, *folder.synced, *folder.since}):
        node = fate.name(folder, name)
        if isinstance(node, File):
            image[prefix + name] = fate.content(node)
        elif node is not None and id(node) not in seen:
            seen.add(id(node))  # a renamed folder is here or there, never twice
            image[prefix + name] = None
            _collect(node, f"{prefix}{name}/", fate, image, seen)


def digest_of(state: State) -> bytes:
    """Tells states apart."""
    total = hashlib.blake2b(repr(sorted(state.promised)).encode(), digest_size=16)
    for path, content in state.image.items():
        total.update(f"\0{path}\0{-1 if content is None else len(content)}\0".encode())
        total.update(content or b"")
    return total.digest()


def restore(image: Image, base: Path) -> None:
    """Lay a state out in an empty folder."""
    for path, content in image.items():
        name = f"{base}/{path}"
        if content is None:
            os.mkdir(name)  # noqa: PTH102 -- of hundreds of thousands
            continue
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(handle, content)
        os.close(handle)
