"""Workers: every trial once, as if trained alone, whoever dies."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch

from losa.adapt.cohortstep import CohortStep
from losa.adapt.train import adapt_on
from losa.adapt.trial import Trial
from losa.config import SweepConfig
from losa.interrupt import PREEMPTED
from losa.sweep.choosing import ranked
from losa.sweep.folder import SweepFolder, claim_of
from losa.sweep.results import TrialResult
from losa.sweep.run import Sweep
from losa.sweep.worker import Member, Worker, parameters_of
from tests.adapt.memory_store import MemoryStore, separable_store
from tests.faults.figures import publish
from tests.faults.processes import Countdown, HookedSystem, Log, die, ended, forked
from tests.faults.tiny import through
from tests.store.build import small_plan, small_store
from tests.sweep.tiny import BASE, FILE, begun, scheduled, trained

WORKERS = 3
QUICK_KILLS = 4
GRID: dict[str, Any] = {
    "base": {**BASE, "batch_size": 6},
    "grid": {"rank": [1, 2], "lr": [0.01, 0.03, 0.1], "weight_decay": [0.0, 0.1], "seed": [0, 1]},
}


@pytest.fixture
def _unchecked() -> Iterator[None]:
    """No checks of shapes, which take most of the time."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def _memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder in memory where there is one."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        monkeypatch.chdir(folder)
        yield


def test_a_trial_of_a_sweep_is_the_run_it_would_be_alone(
    store: MemoryStore, tmp_path: Path
) -> None:
    folder, results = trained(store, tmp_path, {"grid": {"rank": [1, 2]}, "seeds": [0, 1]})
    assert len(results) == 4
    _, trials = begun(store, tmp_path, {"grid": {"rank": [1, 2]}, "seeds": [0, 1]})
    for trial, found in zip(trials, results, strict=True):
        alone = adapt_on(store, trial.config.model_copy(update={"out": tmp_path / "alone"
                                                                / trial.digest}))  # fmt: skip
        assert found.status == "complete"
        assert found.parameters == alone.parameters
        assert found.epochs == BASE["epochs"]
        for split in ("val", "test"):
            assert found.metrics[split]["top1"] == alone.metrics[split]["top1"]
            assert found.metrics[split]["loss"] == pytest.approx(alone.metrics[split]["loss"])
        assert (folder.trials / trial.digest / "best.safetensors").exists()


def test_a_trial_that_diverges_has_its_reason_for_a_result_and_harms_nobody(
    store: MemoryStore, tmp_path: Path
) -> None:
    _, results = trained(store, tmp_path, {"grid": {"lr": [0.01, 1e30, 0.02]}})
    assert [result.status for result in results] == ["complete", "failed", "complete"]
    assert "not finite" in str(results[1].reason)


def test_what_is_done_is_not_done_again(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(store, tmp_path, {"grid": {"rank": [1, 2]}})
    monkeypatch.setattr(CohortStep, "learn", None)
    trained(store, tmp_path, {"grid": {"rank": [1, 2]}})


@pytest.mark.usefixtures("_unchecked")
def test_halving_finds_what_the_full_grid_finds_for_less(tmp_path: Path) -> None:
    store = separable_store({"train": 64, "val": 48, "test": 8}, noise=4.0)
    epochs, rates = 9, [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
    # A network that learns the toy slowly enough for the rates to differ.
    network = {"rank": 8, "pool": "cls+mean", "standardise": "store"}
    sections = {"base": {"epochs": epochs, "batch_size": 32, **network}, "grid": {"lr": rates}}
    _, full = trained(store, tmp_path / "full", sections)
    halving = {**sections, "halving": {"rungs": [1, 3]}}
    folder, halved = trained(store, tmp_path / "halved", halving)
    wanted, found = (ranked(results)[0].best for results in (full, halved))
    assert found.metrics["val"]["top1"] == wanted.metrics["val"]["top1"]
    assert found.digest == wanted.digest
    lines = [len((folder.trials / result.digest / "metrics.jsonl").read_text().splitlines())
             for result in halved]  # fmt: skip
    assert sorted(lines) == sorted(result.epochs for result in halved) == [*[1] * 6, 3, 3, 9]
    assert sum(lines) <= 0.4 * epochs * len(rates)


def test_no_epoch_of_a_halved_trial_is_trained_twice(store: MemoryStore, tmp_path: Path) -> None:
    sections = {"base": {"epochs": 4}, "grid": {"lr": [0.01, 0.02, 0.03]}}
    trained(store, tmp_path, {**sections, "halving": {"rungs": [1, 2]}})
    epochs = [order for order, *_ in store.split("train").followed if order is not None]
    # All three together to the first rung, one to the second and on to its end.
    assert len(epochs) == 1 + 1 + 2


def test_a_dead_workers_trials_are_taken_over(store: MemoryStore, tmp_path: Path) -> None:
    folder, trials = begun(store, tmp_path, {"grid": {"rank": [1, 2]}})

    def claim_and_die() -> None:
        claims = folder.claims()
        assert all(claims.take(claim_of(trial)) for trial in trials)
        die()

    assert ended(forked(claim_and_die)) == -signal.SIGKILL
    _, results = trained(store, tmp_path, {"grid": {"rank": [1, 2]}})
    assert len(results) == 2


def test_a_process_told_to_end_leaves_with_its_code_and_gives_its_claims_back(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, schedule = scheduled(store, tmp_path, {"grid": {"rank": [1, 2]}})
    learn = CohortStep.learn

    def told(step: CohortStep, *batch: Any) -> None:
        signal.raise_signal(signal.SIGTERM)
        learn(step, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(CohortStep, "learn", told)
        with pytest.raises(SystemExit) as left:
            Worker(folder, schedule, store, member=Member()).run()
    assert left.value.code == PREEMPTED
    assert len(schedule.pending()) == 2
    assert all(folder.claims().is_free(claim_of(one.trial)) for one in schedule.pending())
    trained(store, tmp_path, {"grid": {"rank": [1, 2]}})


@pytest.mark.usefixtures("_unchecked")
def test_a_trial_that_lacks_memory_fails_alone_and_those_beside_it_are_as_ever(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections = {"grid": {"rank": [1, 2, 16, 3]}}
    _, alone = trained(store, tmp_path / "with room", sections)
    learn = CohortStep.learn

    def starved(step: CohortStep, trials: Sequence[Trial], *batch: Any) -> None:
        learn(step, trials, *batch)
        if any(trial.config.rank == 16 for trial in trials):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(CohortStep, "learn", starved)
    _, results = trained(store, tmp_path / "starved", sections)
    assert [found.status for found in results] == ["complete", "complete", "failed", "complete"]
    assert "out of memory" in str(results[2].reason)
    for found, wanted in zip(results, alone, strict=True):
        if found.status == "complete":
            assert figures(found) == as_close_as_cohorts_are(figures(wanted))


def test_an_error_of_another_kind_ends_a_worker(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: Any) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(CohortStep, "learn", wrong)
    with pytest.raises(RuntimeError, match="shapes differ"):
        trained(store, tmp_path, {"grid": {"rank": [1, 2]}})


def test_a_folder_that_somebody_holds_holds_up_no_other_trial(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections = {"grid": {"rank": [1, 2, 3]}}
    folder, trials = begun(store, tmp_path, sections)
    place = folder.trials / trials[1].digest
    place.mkdir()
    held = os.open(place, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    seen: list[int] = []

    def slept(_: float) -> None:
        seen.append(sum(folder.result(trial.digest) is not None for trial in trials))
        if seen[-1] == 2:
            fcntl.flock(held, fcntl.LOCK_UN)
        assert len(seen) < 9

    monkeypatch.setattr("losa.sweep.worker.time.sleep", slept)
    try:
        _, results = trained(store, tmp_path, sections)
    finally:
        os.close(held)
    assert [found.status for found in results] == ["complete"] * 3
    assert seen[-1] == 2


def test_the_parameters_of_a_trial_are_counted_without_training(
    store: MemoryStore, tmp_path: Path
) -> None:
    _, trials = begun(store, tmp_path, {"list": [{"adaptor": "linear"}]})
    # A LayerNorm over the class token and the mean of the others, and a linear layer.
    width = 2 * 6
    assert parameters_of(store, trials[0]) == 2 * width + width * 4 + 4


@pytest.mark.usefixtures("_memory", "_unchecked")
@pytest.mark.parametrize(
    "kills", [QUICK_KILLS, pytest.param(60, marks=pytest.mark.faults, id="whole")]
)
@pytest.mark.timeout(900)
def test_workers_killed_at_random_leave_the_serial_table_each_trial_once(kills: int) -> None:
    small_store(Path("s.zarr"), small_plan({"train": 24, "val": 12, "test": 12}))
    opened("serial").train()
    log, dice = Log(Path("log")), random.Random(5)
    killed = runs = 0
    while killed < kills:
        out = f"killed-{runs}"
        running = {forked_worker(out, number, dice, log): number for number in range(WORKERS)}
        while running:
            code, number = first_to_end(running)
            assert code in (0, -signal.SIGKILL)
            if code:
                killed += 1
                running[forked_worker(out, number, dice, log)] = number
        for found, wanted in zip(all_of(out), all_of("serial"), strict=True):
            assert (found.digest, found.status) == (wanted.digest, wanted.status)
            assert found.epochs == wanted.epochs
            assert figures(found) == as_close_as_cohorts_are(figures(wanted))
        done = [line for line in log.lines() if line.startswith(out)]
        assert len(set(done)) == len(done)
        assert len(list(Path(out).glob("trials/*/result.json"))) == 24
        runs += 1
    if kills > QUICK_KILLS:
        told = {"kills": killed, "sweeps": runs, "trials": 24 * runs, "identical": runs}
        publish("f16-sweep", told)


def first_to_end(running: dict[int, int]) -> tuple[int, int]:
    """Wait for the first of some processes; its exit code, and its number, which is taken out."""
    while True:
        for child in running:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status), running.pop(child)
        time.sleep(0.002)


def opened(out: str) -> Sweep:
    return Sweep(SweepConfig(store=Path("s.zarr"), out=Path(out)), GRID, FILE)


def all_of(out: str) -> list[TrialResult]:
    """The results of a sweep that has ended, each of a trial of its own."""
    results = opened(out).results()
    assert len({result.digest for result in results}) == len(results) == 24
    return results


def figures(result: TrialResult) -> dict[str, float]:
    """What came out of a trial, without what a clock or a gauge has measured."""
    return {
        f"{split} {name}": value
        for split, values in result.metrics.items()
        for name, value in values.items()
    }


def as_close_as_cohorts_are(wanted: dict[str, float]) -> dict[str, Any]:
    """Counts of samples are equal; sums over them depend on who else was in the cohort."""
    exact = ("top1", "top5", "rows", "skipped", "mean_per_class")
    return {
        name: value if name.split()[1] in exact else pytest.approx(value, rel=1e-4, abs=1e-6)
        for name, value in wanted.items()
    }


def forked_worker(out: str, number: int, dice: random.Random, log: Log) -> int:
    """A worker in a process of its own, which dies some steps from now, or does not."""
    acts, seconds = dice.randint(1, 250), dice.uniform(0.0, 0.02)

    def die_soon(*_: object) -> None:
        # In the act, or a little later: in another one, or in a step of training.
        threading.Timer(seconds, die).start() if number % 2 else die()

    def work() -> None:
        # What ran in this process before may have left a pool of threads that does not fork.
        torch.set_num_threads(1)
        finish = SweepFolder.finish

        def logged(folder: SweepFolder, found: TrialResult) -> bool:
            is_ours = finish(folder, found)
            if is_ours:
                log(f"{out} {found.digest}")
            return is_ours

        setattr(SweepFolder, "finish", logged)  # noqa: B010 -- of this process alone
        with through(HookedSystem(Countdown(acts, die_soon))):
            opened(out).train(member=Member(number, WORKERS))

    return forked(work)
