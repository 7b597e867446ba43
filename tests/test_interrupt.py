"""Stop requests: noted once, then out of the way."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from losa.errors import StoppedError
from losa.interrupt import PREEMPTED, SAME_SECONDS, SIGNALS, StopRequest


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


def test_the_first_signal_is_noted_and_the_second_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    seconds = iter([100.0, 100.0 + SAME_SECONDS])
    monkeypatch.setattr("losa.interrupt.time.monotonic", lambda: next(seconds))
    with StopRequest() as stop:
        before = stop.is_set
        os.kill(os.getpid(), signal.SIGINT)
        assert (before, stop.is_set) == (False, True)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            stop.leave()


def test_what_a_launcher_sends_to_a_process_and_to_its_group_is_one_signal() -> None:
    signal.signal(signal.SIGTERM, terminate)
    with StopRequest() as stop:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.name == "SIGTERM"


def test_another_signal_is_a_second_one_at_once() -> None:
    signal.signal(signal.SIGTERM, terminate)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(TerminatedError):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.name == "SIGUSR1"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
@pytest.mark.parametrize("turned_into", [None, RuntimeError("what a library made of it")])
def test_a_block_with_nothing_to_finish_ends_at_once_as_pre_empted(
    number: signal.Signals, turned_into: Exception | None
) -> None:
    def work() -> None:
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt as error:
            raise turned_into or error from None
        pytest.fail("it went on")

    with (
        pytest.raises(StoppedError) as told,
        StopRequest() as stop,
        stop.at_once("s.zarr", "before it wrote a row", "start again"),
    ):
        work()
    assert str(told.value) == (
        f"s.zarr: told to end ({number.name}) before it wrote a row; start again"
    )
    assert told.value.exit_code == 75


def test_ctrl_c_and_errors_leave_such_a_block_as_they_always_do() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop, stop.at_once("s", "early"):
        os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(TerminatedError), StopRequest() as stop, stop.at_once("s", "early"):
        terminate()


def test_an_error_of_such_a_block_is_its_own_where_the_signal_had_come_before() -> None:
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(TerminatedError), stop.at_once("s.zarr", "while it sealed the store"):
            terminate()


def test_after_such_a_block_the_first_signal_is_only_noted() -> None:
    with StopRequest() as stop:
        with stop.at_once("s.zarr", "early"):
            pass
        os.kill(os.getpid(), signal.SIGUSR2)
        assert stop.name == "SIGUSR2"


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


def test_who_stood_before_nested_requests_is_told_of_ctrl_c() -> None:
    told: list[int] = []

    def note(number: int, _: object) -> None:
        told.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    with StopRequest(), StopRequest(), StopRequest() as inner:
        os.kill(os.getpid(), signal.SIGINT)
        assert (inner.is_set, told) == (True, [])
        with pytest.raises(KeyboardInterrupt):
            inner.leave()
    assert told == [signal.SIGINT]


def test_a_signal_that_came_before_an_inner_request_was_opened_is_known_to_it() -> None:
    with StopRequest() as outer:
        signal.raise_signal(signal.SIGTERM)
        with StopRequest() as inner:
            assert inner.is_set
            assert inner.name == outer.name
        assert outer.is_set
    with StopRequest() as later:
        assert not later.is_set
