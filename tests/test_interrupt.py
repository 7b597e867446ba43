"""Stop requests: noted once, then out of the way."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from losa.interrupt import PREEMPTED, SIGNALS, StopRequest


class TerminatedError(Exception):
    """What a host program's own handler raises."""


def terminate(*_: object) -> None:
    raise TerminatedError


@pytest.fixture(autouse=True)
def fixture_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_first_signal_is_noted_and_the_second_acts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with StopRequest() as stop:
        before = stop.is_set
        os.kill(os.getpid(), signal.SIGINT)
        assert (before, stop.is_set) == (False, True)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            stop.leave()


@pytest.mark.parametrize("handler", [signal.SIG_DFL, terminate])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_schedulers_signal_leaves_as_pre_empted_whatever_handler_was_there_before(
    number: signal.Signals, handler: Any
) -> None:
    signal.signal(number, handler)
    with StopRequest() as stop:
        os.kill(os.getpid(), number)
        assert (stop.name, stop.is_interrupt) == (number.name, False)
        with pytest.raises(SystemExit) as left:
            stop.leave()
    assert left.value.code == PREEMPTED == 75


def test_the_time_since_a_signal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    seconds = iter([100.0, 107.0])
    with StopRequest() as stop:
        assert (stop.name, stop.waited_seconds) == ("", 0.0)
        monkeypatch.setattr("losa.interrupt.time.monotonic", lambda: next(seconds))
        os.kill(os.getpid(), signal.SIGINT)
        assert (stop.name, stop.is_interrupt, stop.waited_seconds) == ("SIGINT", True, 7.0)


def test_ctrl_c_is_told_to_the_handler_that_was_there_before_and_is_an_interrupt() -> None:
    told = []
    signal.signal(signal.SIGINT, lambda number, _: told.append(number))
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            stop.leave()
    assert told == [signal.SIGINT]


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert not stop.is_set


def test_handlers_are_put_back() -> None:
    signal.signal(signal.SIGTERM, terminate)
    with StopRequest():
        assert signal.getsignal(signal.SIGTERM) is not terminate
    assert signal.getsignal(signal.SIGTERM) is terminate


def test_another_thread_than_the_main_one_changes_nothing() -> None:
    signal.signal(signal.SIGTERM, terminate)
    seen = []

    def work() -> None:
        with StopRequest():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [terminate]
