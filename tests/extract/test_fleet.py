"""Claims of losa.extract.fleet: places in an environment, the order of work, and when to leave."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from losa.errors import StoppedError, UsageError
from losa.extract import fleet
from losa.extract.fleet import ALONE, Place, Share, fitted_to, place_from_environment
from losa.interrupt import StopRequest
from losa.store import StoreWriter
from losa.store.claims import ShardTask
from tests.extract.picture_folder import tiny_config
from tests.store.build import begin_store, small_plan
from tests.store.elsewhere import Elsewhere, foreign_claim

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
STEP = {"SLURM_PROCID": "5", "SLURM_NTASKS": "6", "SLURM_LOCALID": "2"}
ARRAY = {
    "SLURM_ARRAY_TASK_ID": "7",
    "SLURM_ARRAY_TASK_COUNT": "3",
    "SLURM_ARRAY_TASK_MIN": "3",
    "SLURM_ARRAY_TASK_STEP": "2",
}
ONE_TASK = {"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_LOCALID": "0"}


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, ALONE),
        (TORCHRUN, Place(3, 8, 1, 2)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, ALONE),
        ({**TORCHRUN, **STEP, **ARRAY}, Place(3, 8, 1, 2)),
        (STEP, Place(5, 6, 2)),
        ({"SLURM_NTASKS": "6"}, ALONE),
        ({"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "4"}, Place(1, 4)),
        (ARRAY, Place(2, 3)),
        ({**ARRAY, **ONE_TASK}, Place(2, 3)),
        ({**ARRAY, **STEP}, Place(2 * 6 + 5, 18, 2)),
    ],
)
def test_a_place_is_read_from_what_torchrun_or_slurm_tells(
    environment: dict[str, str], place: Place
) -> None:
    assert place_from_environment(environment) == place


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "3"}, "WORLD_SIZE: is missing"),
        ({"WORLD_SIZE": "3"}, "RANK: is missing"),
        ({"RANK": "3", "WORLD_SIZE": "3"}, "RANK: 3 is not below WORLD_SIZE=3"),
        ({"RANK": "-1", "WORLD_SIZE": "3"}, "RANK: '-1' is no number from 0 on"),
        ({"RANK": "", "WORLD_SIZE": "3"}, "RANK: '' is no number"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE: '0' is no number from 1 on"),
        ({**TORCHRUN, "LOCAL_RANK": "x"}, "LOCAL_RANK: 'x' is no number"),
        ({**STEP, "SLURM_PROCID": "6"}, "SLURM_PROCID: 6 is not below SLURM_NTASKS=6"),
        ({"SLURM_ARRAY_TASK_ID": "0"}, "SLURM_ARRAY_TASK_COUNT: is missing"),
        ({**ARRAY, "SLURM_ARRAY_TASK_ID": "6"}, "SLURM_ARRAY_TASK_ID: 6 is none of 3 tasks from 3"),
        ({**ARRAY, "SLURM_ARRAY_TASK_ID": "9"}, "9 is none of 3 tasks from 3 in steps of 2"),
        ({**ARRAY, "SLURM_ARRAY_TASK_ID": "1"}, "1 is none of 3 tasks"),
        ({**ARRAY, "SLURM_ARRAY_TASK_STEP": "0"}, "'0' is no number from 1 on"),
    ],
)
def test_a_place_that_cannot_be_is_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        place_from_environment(environment)


def test_auto_is_the_own_device_and_the_own_part_of_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(48)))
    config = tiny_config(tmp_path, tmp_path / "s.zarr", device="auto", num_workers="auto")
    fitted = fitted_to(Place(7, 8, 3, 4), config)
    assert (fitted.device, fitted.num_workers, current) == ("cuda:3", 6, [3])
    with pytest.raises(UsageError, match="LOCAL_RANK: process 4 of this machine has no device"):
        fitted_to(Place(7, 8, 4, 8), config)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert fitted_to(Place(7, 8, 3), config).device == "cuda:0"
    asked = config.model_copy(update={"device": "cpu", "num_workers": 2})
    assert fitted_to(Place(7, 8, 3, 4), asked) == asked
    assert fitted_to(ALONE, config) == config


def test_without_cuda_auto_stays_auto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = tiny_config(tmp_path, tmp_path / "s.zarr", device="auto")
    assert fitted_to(Place(1, 2, 1), config) == config


def test_several_processes_do_not_replace_a_store(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, tmp_path / "s.zarr", overwrite=True)
    assert fitted_to(ALONE, config) == config
    with pytest.raises(UsageError, match="--overwrite: does not go with 2 processes"):
        fitted_to(Place(0, 2), config)


@pytest.mark.parametrize(
    ("place", "appears_at", "waited"),
    [(Place(0, 2), 99, 0), (ALONE, 99, 0), (Place(1, 2), 7, 7), (Place(1, 2), 9999, 300)],
)
def test_the_first_process_begins_the_store_unless_it_does_not_come(
    tmp_path: Path, place: Place, appears_at: int, waited: int
) -> None:
    seconds = 0.0

    def sleep(some: float) -> None:
        nonlocal seconds
        seconds += some
        if seconds == appears_at:
            (tmp_path / "s.zarr").mkdir()

    fleet.wait_for_first(tmp_path / "s.zarr", place, sleep)
    assert seconds == waited


class Asked(StopRequest):
    """A request to stop that came so many seconds ago, once there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.asked_seconds: float | None = None

    @property
    def is_set(self) -> bool:
        return self.asked_seconds is not None

    @property
    def name(self) -> str:
        return "SIGUSR1"

    @property
    def waited_seconds(self) -> float:
        return self.asked_seconds or 0.0


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[StoreWriter]:
    begin_store(tmp_path / "s.zarr", small_plan({"train": 24}))
    with StoreWriter(tmp_path / "s.zarr", durable=False) as opened:
        yield opened


TASK = ShardTask("train", 1, 8, 16)


@pytest.mark.parametrize(
    ("asked_seconds", "is_finished"), [(0.0, True), (14.0, True), (14.1, False)]
)
def test_a_shard_at_hand_is_finished_if_its_pace_fits_into_the_grace(
    writer: StoreWriter, asked_seconds: float, is_finished: bool
) -> None:
    stop, seconds = Asked(), iter([100.0, 106.0])
    share = Share(ALONE, stop, 20.0, clock=lambda: next(seconds))
    assert not share.ends_before(writer, TASK, 8)
    assert not share.ends_before(writer, TASK, 12)
    stop.asked_seconds = asked_seconds
    # Four rows took six seconds, and four are left.
    if is_finished:
        assert not share.ends_before(writer, TASK, 12)
    else:
        with pytest.raises(StoppedError, match=r"told to end \(SIGUSR1\) with 0 of 24 rows done"):
            share.ends_before(writer, TASK, 12)


def test_no_shard_is_begun_once_a_stop_was_asked_for(writer: StoreWriter) -> None:
    stop = Asked()
    share = Share(Place(1, 2), stop, 20.0)
    given = share.tasks(writer)
    assert next(given).shard == 1
    stop.asked_seconds = 0.0
    assert list(given) == []
    assert share.ends_before(writer, TASK, TASK.first)


def test_a_process_that_was_asked_to_end_does_not_wait_for_others(tmp_path: Path) -> None:
    begin_store(tmp_path / "s.zarr", small_plan({"train": 8}))
    foreign_claim(tmp_path / "s.zarr")
    stop = Asked()

    def ask(second: int) -> None:
        if second == 5:
            stop.asked_seconds = 0.0

    elsewhere, looks = Elsewhere(ask), []
    with StoreWriter(tmp_path / "s.zarr", clock=elsewhere.clock) as opened:
        with pytest.raises(StoppedError, match="start the same processes again") as stopped:
            Share(Place(1, 2), stop).wait(opened, lambda: looks.append(elsewhere.seconds))
        assert (stopped.value.exit_code, looks) == (75, [0, 1, 2, 3, 4])


def test_a_process_that_was_asked_to_end_leaves_a_free_shard_to_others(writer: StoreWriter) -> None:
    stop = Asked()
    assert Share(ALONE, stop).wait(writer)
    stop.asked_seconds = 0.0
    with pytest.raises(StoppedError, match=r"0 of 24 rows done$"):
        Share(ALONE, stop).wait(writer)


def test_ctrl_c_is_said_and_has_its_own_exit_code(writer: StoreWriter) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(StoppedError, match="interrupted with 0 of 24") as stopped:
            Share(ALONE, stop).wait(writer)
    assert stopped.value.exit_code == 130


def test_gpus_becomes_torchrun_with_the_same_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[list[str]] = []

    def become(program: str, words: list[str]) -> None:
        assert program == words[0]
        became.append(words)
        raise SystemExit

    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(os, "execv", become)
    for given in (["--gpus", "2"], ["--gpus=2"]):
        with pytest.raises(SystemExit):
            fleet.start_processes(2, "auto", ["extract", *given, "--store", "--gpus.zarr"])
    options = "--standalone --nproc-per-node 2 --max-restarts 3 -m losa extract --store --gpus.zarr"
    assert became == [[sys.executable, "-m", "torch.distributed.run", *options.split()]] * 2


@pytest.mark.parametrize(
    ("devices", "asked", "environment", "message"),
    [
        (9, "auto", {}, "--gpus: 9 of 8 devices; give 1 to 8"),
        (0, "auto", {}, "--gpus: 0 of 8 devices"),
        (2, "cuda:1", {}, "--gpus: does not go with --device"),
        (2, "auto", {"RANK": "0"}, "--gpus: this is one of several processes already"),
    ],
)
def test_gpus_that_cannot_be_are_refused(
    devices: int,
    asked: str,
    environment: dict[str, str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message):
        fleet.start_processes(devices, asked, [])


def test_gpus_on_a_machine_without_any_says_how_to_start_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="torchrun --standalone --nproc-per-node 2 -m losa"):
        fleet.start_processes(2, "auto", [])
