"""Ctrl-C and SIGTERM as a question asked between two steps, so that no step is torn."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Final

PREEMPTED: Final = 75
"""Exit code of a run that was told to leave and can be resumed (EX_TEMPFAIL)."""


class StopRequest:
    """While open, the first SIGINT or SIGTERM is only noted; a second one acts as it always did.

    Signals that are ignored stay so. Outside of the main thread, where Python delivers no signals,
    nothing is changed.
    """

    def __init__(self) -> None:
        self._signal: int | None = None
        self._handler: Any = None
        self._before: dict[int, Any] = {}

    @property
    def is_set(self) -> bool:
        """Whether somebody asked to stop."""
        return self._signal is not None

    def leave(self) -> None:
        """Leave as the noted signal asks; whoever starts the same command again goes on.

        The handler that was there before us is told of a SIGINT. Of a SIGTERM it is not: its exit
        code would be another one than the scheduler that sent it requeues.

        Raises:
            KeyboardInterrupt: the signal was SIGINT.
            SystemExit: it was SIGTERM; with code 75, pre-empted.
        """
        if self._signal == signal.SIGTERM:
            raise SystemExit(PREEMPTED)
        if callable(self._handler):
            self._handler(self._signal, None)
        raise KeyboardInterrupt

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 -- signal's form
        self._signal, self._handler = number, self._before.get(number)
        self._restore()

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)
