"""Ctrl-C, SIGTERM and what schedulers send, as a question asked between two steps: none is torn."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Final

from losa.errors import StoppedError

PREEMPTED: Final = 75
"""Exit code of a run that was told to leave and can be resumed (EX_TEMPFAIL)."""

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What asks a command to end; schedulers send the last two some time before they kill."""


SAME_SECONDS: Final = 1.0
"""Signals of one kind within so long are one: launchers signal a process, and its group too."""


class Preempted(KeyboardInterrupt):
    """A scheduler asked the process to end, where there is nothing to finish before."""


class StopRequest:
    """While open, the first of these signals is only noted; a second one acts as it always did.

    What repeats the first within a second is no second one. Signals that are ignored stay so.
    Outside of the main thread, where Python delivers no signals, nothing is changed.
    """

    def __init__(self) -> None:
        self._signal: int | None = None
        self._noted_at = 0.0
        self._handler: Any = None
        self._before: dict[int, Any] = {}
        self._is_at_once = False

    @property
    def is_set(self) -> bool:
        """Whether somebody asked to stop."""
        return self._signal is not None

    @property
    def is_interrupt(self) -> bool:
        """Whether it was by Ctrl-C."""
        return self._signal == signal.SIGINT

    @property
    def name(self) -> str:
        """The signal that asked, or nothing."""
        return "" if self._signal is None else signal.Signals(self._signal).name

    @property
    def waited_seconds(self) -> float:
        """Seconds since somebody asked."""
        return time.monotonic() - self._noted_at if self.is_set else 0.0

    def leave(self) -> None:
        """Leave as the noted signal asks; whoever starts the same command again goes on.

        The handler that was there before us is told of a SIGINT, also from within another of these.
        Of the others it is not: its exit code would be another one than the scheduler that sent it
        requeues.

        Raises:
            KeyboardInterrupt: the signal was SIGINT.
            SystemExit: it was another; with code 75, pre-empted.
        """
        if not self.is_interrupt:
            raise SystemExit(PREEMPTED)
        if callable(self._handler):
            self._handler(self._signal, None)
        # Another request only notes it, and whoever stood before that one would never hear of it.
        around = getattr(self._handler, "__self__", None)
        if isinstance(around, StopRequest):
            around.leave()
        raise KeyboardInterrupt

    @contextmanager
    def at_once(self, subject: object, when: str, todo: str = "") -> Iterator[None]:
        """A block that the first of these signals ends: nothing in it is worth finishing.

        Ctrl-C does what it always does.

        Args:
            subject: what the error is about.
            when: how far things were, for people.
            todo: what to do then.

        Raises:
            StoppedError: a signal came in the block, whatever became of it on its way through.
        """
        # What was told before is being done: an error of the block is not its consequence.
        was_set = self.is_set
        self._is_at_once = True
        try:
            yield
        except BaseException:
            if self.is_set and not (was_set or self.is_interrupt):
                raise StoppedError(subject, f"told to end ({self.name}) {when}", todo) from None
            raise
        finally:
            self._is_at_once = False

    def __enter__(self) -> StopRequest:
        around = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        if isinstance(around, StopRequest) and around.is_set and self._before:
            # Told before this was opened: whoever asks this one alone should hear of it.
            self._signal, self._noted_at = around._signal, around._noted_at  # noqa: SLF001 -- of its own class
            self._handler = self._before.get(self._signal) if self._signal is not None else None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 -- signal's form
        now = time.monotonic()
        if self._signal is None:
            self._noted_at = now
            self._signal, self._handler = number, self._before.get(number)
            if self._is_at_once and self.is_interrupt:
                self._act(number)
            elif self._is_at_once:
                raise Preempted
        elif number != self._signal or now - self._noted_at >= SAME_SECONDS:
            self._act(number)

    def _act(self, number: int) -> None:
        """Let a signal do what it did before this was opened."""
        self._restore()
        signal.raise_signal(number)

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)
