"""Processes of one machine: their environment, their deaths, and the signals that reach them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from losa.errors import LockedError, LosaError, ResourceError, StoreError
from losa.interrupt import PREEMPTED
from losa.sweep.processes import (
    MEMBER,
    RESTARTS,
    Processes,
    environment_of,
    member_from_environment,
    visible_devices,
)
from losa.sweep.worker import Member


def running(script: str, count: int = 2) -> Processes:
    """Processes of a short script, in which ``me`` is its own number."""
    found = Processes([], count)
    head = f"import os, sys, signal; me = os.environ['{MEMBER}']\n"
    found._command = [sys.executable, "-S", "-c", head + script]
    return found


def never() -> int:
    return 0


def test_each_has_its_number_its_threads_and_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    found = [environment_of(Member(number, 3), devices=["4", "5"]) for number in range(3)]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in found] == ["4", "5", "4"]
    assert {one["OMP_NUM_THREADS"] for one in found} == {"2"}
    assert [member_from_environment(one) for one in found] == [Member(i, 3) for i in range(3)]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert environment_of(Member(0, 3), devices=[])["OMP_NUM_THREADS"] == "5"


@pytest.mark.parametrize("text", ["", "1", "a/b", "1/", "-1/2"])
def test_what_names_no_member_is_none(text: str) -> None:
    assert member_from_environment({MEMBER: text}) is None


def test_devices_are_shared_out_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_devices("auto") == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,7")
    assert visible_devices("cuda") == ["3", "7"]
    assert visible_devices("cuda:1") == visible_devices("cpu") == []


def test_all_of_them_are_waited_for(tmp_path: Path) -> None:
    looks: list[int] = []

    def look() -> int:
        looks.append(0)
        return 0

    running(f"open('{tmp_path}/' + me[0], 'w').close()", count=3).run(look)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]
    assert looks


def test_one_that_is_killed_is_started_again(tmp_path: Path) -> None:
    script = (
        f"path = '{tmp_path}/' + me[0]\n"
        "if not os.path.exists(path):\n"
        "    open(path, 'w').close(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "open(path + '-again', 'w').close()\n"
    )
    running(script).run(never)
    assert len(list(tmp_path.glob("*-again"))) == 2


def test_processes_that_are_killed_again_and_again_are_given_up(tmp_path: Path) -> None:
    script = f"open('{tmp_path}/' + str(os.getpid()), 'w'); os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(ResourceError, match=r"again and again .last by SIGKILL"):
        running(script, count=1).run(never)
    assert len(list(tmp_path.iterdir())) == RESTARTS + 1


def test_an_error_of_one_is_told_once_the_others_have_ended(tmp_path: Path) -> None:
    script = f"sys.exit(6) if me[0] == '0' else open('{tmp_path}/done', 'w').close()"
    with pytest.raises(ResourceError, match="exit code 6"):
        running(script).run(never)
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [(4, 4, StoreError), (0, 7, LockedError), (4, 7, ResourceError), (1, 1, ResourceError)],
)
def test_what_all_of_them_end_with_is_what_the_command_ends_with(
    first: int, second: int, kind: type[LosaError]
) -> None:
    with pytest.raises(LosaError) as caught:
        running(f"sys.exit({first} if me[0] == '0' else {second})").run(never)
    assert type(caught.value) is kind


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_all_of_them_before_the_first_leaves(number: signal.Signals) -> None:
    started: list[subprocess.Popen[bytes]] = []
    script = "import time; signal.signal(signal.SIGINT, signal.SIG_DFL); time.sleep(60)"
    found = running(script)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def look() -> int:
        if not started:
            started.extend(found._running.values())
            signal.raise_signal(number)
        return 0

    wanted: Sequence[type[BaseException]] = (KeyboardInterrupt, SystemExit)
    try:
        with pytest.raises(tuple(wanted)) as left:
            found.run(look)
    finally:
        signal.signal(signal.SIGINT, before)
    if number == signal.SIGTERM:
        assert isinstance(left.value, SystemExit)
        assert left.value.code == PREEMPTED
    assert [process.poll() is not None for process in started] == [True, True]
