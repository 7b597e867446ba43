"""Processes that write, are killed or paused, and whose system calls can be interfered with."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from losa.errors import LockedError, LosaError
from losa.store import Plan, system
from losa.store.claims import ShardTask
from tests.faults.tiny import write_store

UNEXPECTED: Final = 70
"""Exit code of a process in which something was raised that losa has no name for."""


class HookedSystem(system.System):
    """Asks ``before`` each act, which may end the process, pause it, or raise."""

    def __init__(self, before: Callable[[str, Any], None]) -> None:
        self._before = before

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or name == "place":  # which is made of the other acts
            return found

        def act(*args: Any) -> Any:
            if name == "close":
                found(*args)
            self._before(name, args[0])
            return None if name == "close" else found(*args)

        return act


class Countdown:
    """Does something at the n-th act, and at every later one if it is ``lasting``."""

    def __init__(
        self, number: int, act: Callable[[str, Any], None], *, lasting: bool = False
    ) -> None:
        self.left = number
        self._act = act
        self._lasting = lasting

    def __call__(self, name: str, subject: Any) -> None:
        self.left -= 1
        if self.left == 0 or (self._lasting and self.left < 0):
            self._act(name, subject)


def die(*_: object) -> None:
    """End this process as nothing can be prepared for."""
    os.kill(os.getpid(), signal.SIGKILL)


def pause(*_: object) -> None:
    """Stop this process until somebody lets it go on."""
    os.kill(os.getpid(), signal.SIGSTOP)


def forked(act: Callable[[], None]) -> int:
    """Start ``act`` in a process of its own; returns its number."""
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of threads
        child = os.fork()
    if child:
        return child
    code = UNEXPECTED
    try:
        act()
        code = 0
    except LosaError as error:
        code = error.exit_code
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """Wait for a process; returns its exit code, or the negative number of what killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def persist(path: Path, plan: Plan, begun: Callable[[ShardTask], object]) -> None:
    """Run the same command again for as long as another process is in the way."""
    while True:
        try:
            write_store(path, plan, begun=begun)
        except LockedError:
            time.sleep(0.001)
        else:
            return


class Log:
    """Lines that several processes append to a file; what one appends is there if it is killed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.write_bytes(b"")

    def __call__(self, line: object) -> None:
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        os.write(handle, f"{line}\n".encode())
        os.close(handle)

    def lines(self) -> list[str]:
        """Everything so far."""
        return self._path.read_text().splitlines()
