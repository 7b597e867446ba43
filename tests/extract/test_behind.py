"""Claims of losa.extract.behind."""

from __future__ import annotations

import signal
import threading

import pytest

from losa.extract.behind import Behind


def run(behind: Behind[int], count: int) -> None:
    for item in range(count):
        behind.reserve()
        behind.put(item)


def test_items_are_acted_on_in_order_in_another_thread() -> None:
    seen: list[tuple[int, int]] = []
    with Behind[int](lambda item: seen.append((item, threading.get_ident())), depth=2) as behind:
        run(behind, 50)
    assert [item for item, _ in seen] == list(range(50))
    assert {thread for _, thread in seen}.isdisjoint({threading.get_ident()})


def test_no_more_items_than_agreed_are_on_the_way() -> None:
    may_go_on, begun = threading.Event(), threading.Semaphore(0)
    reserved: list[int] = []

    def act(_: int) -> None:
        begun.release()
        may_go_on.wait(10)

    def feed(behind: Behind[int]) -> None:
        for item in range(6):
            behind.reserve()
            reserved.append(item)
            behind.put(item)

    with Behind[int](act, depth=3) as behind:
        feeder = threading.Thread(target=feed, args=(behind,))
        feeder.start()
        begun.acquire()
        feeder.join(0.1)
        assert len(reserved) == 3
        may_go_on.set()
        feeder.join()
    assert len(reserved) == 6


@pytest.mark.parametrize("count", [1, 100])
def test_an_error_of_the_thread_is_raised_by_who_feeds_it_and_ends_all_work(count: int) -> None:
    seen: list[int] = []

    def act(item: int) -> None:
        seen.append(item)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"), Behind[int](act, depth=2) as behind:
        run(behind, count)
    assert seen == [0]


def test_an_error_of_the_feeder_drops_what_has_not_begun() -> None:
    may_go_on, begun = threading.Event(), threading.Event()
    seen: list[int] = []

    def act(item: int) -> None:
        begun.set()
        may_go_on.wait(10)
        seen.append(item)

    def fail(behind: Behind[int]) -> None:
        run(behind, 3)
        begun.wait(10)
        # The thread goes on only when the block has ended, and the other two are dropped.
        threading.Timer(0.05, may_go_on.set).start()
        raise KeyError("feeder")

    with pytest.raises(KeyError, match="feeder"), Behind[int](act, depth=3) as behind:
        fail(behind)
    assert seen == [0]


def test_ctrl_c_reaches_who_waits_for_room_and_the_thread_has_ended_after_it() -> None:
    may_go_on = threading.Event()
    before = threading.active_count()

    def interrupt() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        may_go_on.set()

    def act(_: int) -> None:
        may_go_on.wait(10)

    timer = threading.Timer(0.05, interrupt)

    def feed(behind: Behind[int]) -> None:
        behind.reserve()
        behind.put(0)
        timer.start()
        behind.reserve()
        signal.pause()

    with pytest.raises(KeyboardInterrupt), Behind[int](act, depth=1) as behind:
        feed(behind)
    timer.join()
    assert threading.active_count() == before
