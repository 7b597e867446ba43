"""Several processes of one sweep on this machine, which share it by claims and nothing else."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch

from losa.errors import (
    InputError,
    LockedError,
    LosaError,
    MismatchError,
    ResourceError,
    SkippedError,
    StoreError,
    UsageError,
)
from losa.interrupt import StopRequest
from losa.sweep.worker import Member

log = logging.getLogger(__name__)

MEMBER: Final = "LOSA_SWEEP_MEMBER"
"""Environment variable that tells a process which of how many it is, as ``1/4``."""

RESTARTS: Final = 3
"""Processes that may be killed one after the other without a trial done between."""

LOOK_SECONDS: Final = 0.5


def member_from_environment(environment: Mapping[str, str] | None = None) -> Member | None:
    """Which process of a sweep this is, if it was started as one.

    Example:
        >>> member_from_environment({"LOSA_SWEEP_MEMBER": "1/4"}), member_from_environment({})
        (Member(number=1, count=4), None)
    """
    text = (os.environ if environment is None else environment).get(MEMBER, "")
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal()):
        return None
    return Member(int(number), max(1, int(count)))


def environment_of(member: Member, *, devices: Sequence[str]) -> dict[str, str]:
    """The environment of a process: its share of the processors, and one device if any."""
    threads = max(1, (os.cpu_count() or 1) // member.count)
    own = {MEMBER: f"{member.number}/{member.count}"}
    if devices:
        own["CUDA_VISIBLE_DEVICES"] = devices[member.number % len(devices)]
    return {"OMP_NUM_THREADS": str(threads), **os.environ, **own}


def visible_devices(device: str) -> list[str]:
    """The CUDA devices that processes may share out, as the environment names them."""
    if device not in ("auto", "cuda") or not torch.cuda.is_available():
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]


class Processes:
    """So many processes that run one command, started again when they are killed."""

    def __init__(self, words: Sequence[str], count: int, devices: Sequence[str] = ()) -> None:
        self._command = [sys.executable, "-m", "losa", *words]
        self._count = count
        self._devices = devices
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._codes: list[int] = []
        self._killed = 0

    def run(self, look: Callable[[], int]) -> None:
        """Run them to their ends; ``look`` is asked now and then how much is done.

        Raises:
            LosaError: some ended with errors, which they have told; with their exit code where
                they agree on one of losa's, else a ``ResourceError``.
            ResourceError: they were killed again and again.
            KeyboardInterrupt: Ctrl-C, after they have ended.
            SystemExit: told to end, and they have; with code 75.
        """
        with StopRequest() as stop:
            try:
                for number in range(self._count):
                    self._start(number)
                self._watch(stop, look)
            finally:
                self._end(signal.SIGTERM)
        if self._codes:
            what = f"processes ended with exit code {', '.join(map(str, sorted(set(self._codes))))}"
            raise _error_of(self._codes)(
                "--workers", what, "mend what their errors say, and run it again"
            )

    def _start(self, number: int) -> None:
        environment = environment_of(Member(number, self._count), devices=self._devices)
        self._running[number] = subprocess.Popen(  # noqa: S603 -- this very program
            self._command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )

    def _watch(self, stop: StopRequest, look: Callable[[], int]) -> None:
        done = look()
        while self._running:
            for number, process in list(self._running.items()):
                if process.poll() is not None:
                    del self._running[number]
                    self._note(number, process.returncode)
            if stop.is_set:
                self._end(signal.SIGINT if stop.is_interrupt else signal.SIGTERM)
                stop.leave()
            now = look()
            self._killed = 0 if now > done else self._killed
            done = now
            if self._running:
                time.sleep(LOOK_SECONDS)

    def _note(self, number: int, code: int) -> None:
        if code > 0:
            self._codes.append(code)
        if code >= 0:
            return
        self._killed += 1
        name = signal.Signals(-code).name
        if self._killed > RESTARTS:
            what = f"processes are killed again and again (last by {name})"
            raise ResourceError("--workers", what, "use fewer, or less memory for a trial")
        log.warning("a process was killed by %s; another one takes its place", name)
        self._start(number)

    def _end(self, number: signal.Signals) -> None:
        for process in self._running.values():
            process.send_signal(number)
        for process in self._running.values():
            process.wait()
        self._running.clear()


def _error_of(codes: Sequence[int]) -> type[LosaError]:
    """The kind of error that all exit codes stand for, where there is one."""
    kinds = (UsageError, InputError, StoreError, MismatchError, LockedError, SkippedError)
    found = [kind for kind in kinds if {kind.exit_code} == set(codes)]
    return found[0] if found else ResourceError
