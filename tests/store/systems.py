"""Systems that stand in for a file system that fails, or that knows less than others."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from losa.store.system import System


def failing(act: str, number: int, *, times: int = 10**9, below: str = "") -> System:
    """A system whose act ``act`` fails that often on files whose path holds ``below``."""
    system = System()
    real: Callable[..., Any] = getattr(system, act)
    left = [times]

    def fail(*arguments: Any) -> Any:
        if left[0] and any(below in path_of(argument) for argument in arguments):
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        return real(*arguments)

    setattr(system, act, fail)
    return system


def path_of(argument: object) -> str:
    """The path that a path, or an open file, stands for."""
    if isinstance(argument, int):
        return str(Path(f"/proc/self/fd/{argument}").readlink())
    return str(argument) if isinstance(argument, Path) else ""


class NoLinks(System):
    """A file system without hard links, as FAT and some network ones are."""

    def link(self, source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(source), None, str(target))


class NoAtomicCreate(NoLinks):
    """One that has no rename that spares its target either."""

    def rename_new(self, source: Path, target: Path) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(source), None, str(target))


class Forgetful(System):
    """A network file system that links, loses its answer, and is asked again."""

    def link(self, source: Path, target: Path) -> None:
        super().link(source, target)
        super().link(source, target)
