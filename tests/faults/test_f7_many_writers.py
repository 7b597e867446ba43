"""F7: several writers of one store, dead ones, and one that wakes up when it was taken for dead."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from losa.store import Plan, StoreWriter, files, layout
from losa.store.claims import STALE_SECONDS, Claims, ShardTask
from losa.store.writer import Clock
from tests.faults.figures import publish
from tests.faults.processes import (
    Countdown,
    HookedSystem,
    Log,
    die,
    ended,
    forked,
    pause,
    persist,
)
from tests.faults.tiny import SPLIT, process, reads_as_written, through, tiny_plan, write_shard
from tests.store.build import begin_store, fill_store, small_plan, small_store, tree

TASK = ShardTask(SPLIT, 0, 0, 3)
RACERS = 16


@pytest.mark.parametrize(
    ("writers", "rounds"),
    [
        (2, 2),
        (8, 1),
        pytest.param(2, 20, marks=pytest.mark.faults),
        pytest.param(8, 20, marks=pytest.mark.faults),
    ],
)
@pytest.mark.timeout(600)
def test_many_writers_make_the_store_that_one_makes(
    writers: int, rounds: int, tmp_path: Path
) -> None:
    plan = small_plan({"train": 40, "val": 12}, shard_rows=4)
    want = tree(small_store(tmp_path / "want.zarr", plan))
    for number in range(rounds):
        path, log = tmp_path / f"{number}.zarr", Log(tmp_path / "begun")
        children = [forked(lambda: persist(path, plan, log)) for _ in range(writers)]  # noqa: B023 -- used in this turn
        assert [ended(child) for child in children] == [0] * writers
        assert tree(path) == want
        assert len(log.lines()) == len(set(log.lines())) == 13
    if rounds > 2:
        publish(f"f7-{writers}-writers", {"rounds": rounds, "identical": rounds})


@pytest.mark.parametrize("rounds", [150, pytest.param(1000, marks=pytest.mark.faults, id="whole")])
@pytest.mark.timeout(600)
def test_of_sixteen_that_claim_a_shard_one_wins(rounds: int, memory: Path) -> None:
    path = memory / "s.zarr"
    begin_store(path, tiny_plan())
    found = list(races(path, rounds, lambda: None))
    assert found == [(1, 1)] * rounds
    if rounds > 150:
        publish("f7-race", {"rounds": rounds, "racers": RACERS, "one_winner": rounds})


@pytest.mark.parametrize("rounds", [150, pytest.param(1000, marks=pytest.mark.faults, id="whole")])
@pytest.mark.timeout(600)
def test_of_sixteen_that_take_over_a_shard_one_wins(rounds: int, memory: Path) -> None:
    path = memory / "s.zarr"
    begin_store(path, tiny_plan())
    claim = path / layout.claim_object(SPLIT, 0)
    dead = files.canonical_json({"host": socket.gethostname(), "boot": "an earlier one"})
    found = list(races(path, rounds, lambda: claim.write_bytes(dead)))
    assert found == [(1, 1)] * rounds
    if rounds > 150:
        publish("f7-take-over", {"rounds": rounds, "racers": RACERS, "one_winner": rounds})


@pytest.mark.timeout(600)
def test_where_there_are_no_locks_one_of_sixteen_that_take_over_a_shard_holds_it_in_the_end(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lockless(*_: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    path = memory / "s.zarr"
    begin_store(path, tiny_plan())
    claim = path / layout.claim_object(SPLIT, 0)
    dead = files.canonical_json({"host": socket.gethostname(), "boot": "an earlier one"})
    monkeypatch.setattr(fcntl, "flock", lockless)
    found = list(races(path, 150, lambda: claim.write_bytes(dead)))
    # A second one may have begun in vain: it no longer holds the claim and will drop its shard.
    assert all(won >= 1 and held == 1 for won, held in found), found


def races(path: Path, rounds: int, prepare: Callable[[], object]) -> Iterator[tuple[int, int]]:
    """How many of the racers take a shard, and how many hold it afterwards, round by round."""
    racers = [Claims(path) for _ in range(RACERS)]
    with ThreadPoolExecutor(RACERS) as threads:
        for _ in range(rounds):
            prepare()
            won = list(threads.map(lambda racer: racer.take(TASK), racers))
            yield sum(won), sum(racer.holds(TASK) for racer in racers)
            for racer in racers:
                racer.release(TASK)
    for racer in racers:
        racer.close()


def test_the_claim_of_a_killed_writer_is_taken_over(memory: Path) -> None:
    path, plan = memory / "s.zarr", tiny_plan()
    begin_store(path, plan)

    def claim_and_die() -> None:
        with StoreWriter(path) as writer:
            next(writer.claimed())
            die()

    assert ended(forked(claim_and_die)) == -signal.SIGKILL
    assert (path / layout.claim_object(SPLIT, 0)).exists()
    fill_store(path, plan)
    assert tree(path) == tree(small_store(memory / "want.zarr", plan))


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.faults, id="every call")])
@pytest.mark.timeout(900)
def test_a_writer_that_wakes_up_after_it_was_taken_for_dead_changes_nothing(
    step: int, memory: Path
) -> None:
    plan = tiny_plan()
    want = tree(small_store(memory / "want.zarr", plan))
    calls, last = calls_of_a_shard(memory / "counted.zarr", plan)
    for number in range(1, calls + 1, step):
        path, log = memory / f"{number}.zarr", Log(memory / "log")
        begin_store(path, plan)
        sleeper = forked(lambda: sleep_and_wake(path, number, log))  # noqa: B023 -- used in this turn
        _, status = os.waitpid(sleeper, os.WUNTRACED)
        assert os.WIFSTOPPED(status), number
        seal_without(path, plan)
        before = facts(path)
        os.kill(sleeper, signal.SIGCONT)
        assert ended(sleeper) == 0, number
        assert facts(path) == before, number
        assert tree(path) == want, number
        assert reads_as_written(path, plan)
        if number <= last:
            assert any("was taken over by another process" in line for line in log.lines()), number
    if step == 1:
        publish("f7-sleeper", {"pauses": calls, "changed": 0, "warned": last})


def sleep_and_wake(path: Path, number: int, log: Log) -> None:
    """Of another host: write a shard, and pause at the n-th call; say what was warned of."""
    handler = logging.Handler()
    handler.emit = lambda record: log(record.getMessage())  # type: ignore[method-assign]  # shortest
    logging.getLogger("losa").addHandler(handler)
    countdown = Countdown(0, pause)
    with (
        process(host="elsewhere", boot="theirs"),
        through(HookedSystem(countdown)),
        StoreWriter(path) as writer,
    ):
        task = next(writer.claimed())
        countdown.left = number
        write_shard(writer, task)


def calls_of_a_shard(path: Path, plan: Plan) -> tuple[int, int]:
    """Calls that it takes to write a claimed shard, and which of them gives it its commit."""
    begin_store(path, plan)
    names: list[str] = []
    calls = HookedSystem(lambda name, _: names.append(name))
    with through(calls), StoreWriter(path) as writer:
        task = next(writer.claimed())
        names.clear()
        write_shard(writer, task)
        last = max(number for number, name in enumerate(names, 1) if name == "link")
        return len(names), last


def seal_without(path: Path, plan: Plan) -> None:
    """Write the store to its end, on a clock by which ten minutes pass at once."""
    seconds = 0.0

    def sleep(_: float) -> None:
        nonlocal seconds
        seconds += STALE_SECONDS / 4

    with StoreWriter(path, clock=Clock(lambda: seconds, sleep)) as writer:
        is_missing = True
        while is_missing:
            for task in writer.claimed():
                write_shard(writer, task)
            is_missing = writer.wait_for_others()
        writer.seal()


def facts(path: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of change of every file."""
    return {
        file.relative_to(path).as_posix(): (file.stat().st_ino, file.stat().st_mtime_ns)
        for file in path.rglob("*")
        if file.is_file()
    }
