"""System calls that act for real and are written down, to be played back up to a power cut."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from unittest import mock

from losa.store import files, system

Kind = Literal["mkdir", "create", "write", "fsync", "link", "unlink", "rename", "sync", "promise"]
STORE_CODE: Final = str(Path(system.__file__).parent)


@dataclass(frozen=True, slots=True)
class Act:
    """One act on the disk; paths lie below the recorded folder, files are told by a number.

    ``sync`` is that of a folder or of a file that is not open. A ``promise`` is no act: from there
    on, what ``path`` names must survive. ``site`` is the line of losa that asked for a sync.
    """

    kind: Kind
    path: str = ""
    target: str = ""
    file: int = 0
    data: bytes = b""
    site: str = ""


class CrashSystem(system.System):
    """Acts on a real folder and keeps a record of every act that changed it."""

    def __init__(self, base: Path) -> None:
        self.acts: list[Act] = []
        self._base = base
        self._open: dict[int, tuple[int, str]] = {}
        self._created = 0

    def create(self, path: Path) -> int:
        handle = super().create(path)
        self._created += 1
        self._open[handle] = self._created, self.name(path)
        self.acts.append(Act("create", self.name(path), file=self._created))
        return handle

    def write(self, handle: int, data: memoryview) -> int:
        count = super().write(handle, data)
        file, name = self._open[handle]
        self.acts.append(Act("write", name, file=file, data=bytes(data[:count])))
        return count

    def fsync(self, handle: int) -> None:
        super().fsync(handle)
        file, name = self._open[handle]
        self.acts.append(Act("fsync", name, file=file, site=site()))

    def close(self, handle: int) -> None:
        super().close(handle)
        del self._open[handle]

    def link(self, source: Path, target: Path) -> None:
        super().link(source, target)
        self.acts.append(Act("link", self.name(source), self.name(target)))

    def unlink(self, path: Path) -> None:
        was_there = path.exists()
        super().unlink(path)
        if was_there:
            self.acts.append(Act("unlink", self.name(path)))

    def rmdir(self, path: Path) -> None:
        was_there = path.exists()
        super().rmdir(path)
        if was_there:
            self.acts.append(Act("unlink", self.name(path)))

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self.acts.append(Act("rename", self.name(source), self.name(target)))

    def mkdir(self, path: Path) -> None:
        super().mkdir(path)
        self.acts.append(Act("mkdir", self.name(path)))

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        self.acts.append(Act("sync", self.name(path), site=site()))

    def sync_file(self, path: Path) -> None:
        super().sync_file(path)
        self.acts.append(Act("sync", self.name(path), site=site()))

    @contextmanager
    def promises(self) -> Iterator[None]:
        """Note every commit record as a promise as soon as it is said to be there for good."""
        publish = files.publish

        def noting(temporary: Path, path: Path, *, durable: bool) -> bool:
            is_ours = publish(temporary, path, durable=durable)
            if is_ours and durable and "commits" in path.parts:
                self.promise(path)
            return is_ours

        with mock.patch.object(files, "publish", noting):
            yield

    def promise(self, path: Path) -> None:
        """From here on, what has this name must survive."""
        self.acts.append(Act("promise", self.name(path)))

    def name(self, path: Path) -> str:
        """A path as the record has it."""
        return path.relative_to(self._base).as_posix() if path != self._base else ""


def roles(acts: Sequence[Act]) -> dict[int, str]:
    """For every sync of a record, where in losa it was asked for and for what kind of file."""
    final = {act.path: act.target for act in acts if act.kind in ("link", "rename")}
    found = {}
    for number, act in enumerate(acts):
        if act.site:
            what = re.sub(r"\d+", "N", final.get(act.path, act.path).partition("/")[2])
            found[number] = f"{act.site} {what or '(parent)'}"
    return found


def site() -> str:
    """Module and function of losa's that called; the system module itself does not count."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(STORE_CODE) and code.co_filename != system.__file__:
            return f"{Path(code.co_filename).stem}.{code.co_name}"
        frame = frame.f_back
    return "elsewhere"
