"""A process that dies at its n-th act on the disk, in this very process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from losa.store import system
from tests.faults.processes import HookedSystem
from tests.faults.tiny import through


class KilledError(BaseException):
    """The process is gone: nothing of it runs any more, no clean-up either."""


class MortalSystem(HookedSystem):
    """A system whose process dies at its n-th act; what it had open is closed behind it."""

    def __init__(self, acts: int) -> None:
        super().__init__(self._count)
        self._left = acts
        self._opened: set[int] = set()

    def _count(self, name: str, _: Any) -> None:
        self._left -= 1
        if self._left < 0 and name != "close":
            raise KilledError(name)

    def create(self, path: Path) -> int:
        handle = super().create(path)
        self._opened.add(handle)
        return handle

    def close(self, handle: int) -> None:
        self._opened.discard(handle)
        super().close(handle)

    def _bury(self) -> None:
        for handle in list(self._opened):
            system.System.close(self, handle)


@contextmanager
def mortal(acts: int) -> Iterator[None]:
    """A process that may die at its n-th act."""
    calls = MortalSystem(acts)
    try:
        with through(calls), suppress(KilledError):
            yield
    finally:
        calls._bury()
