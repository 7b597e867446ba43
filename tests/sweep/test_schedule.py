"""What is left of a sweep follows from its files, whoever looks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from losa.sweep.folder import SweepFolder
from losa.sweep.schedule import Pending
from tests.adapt.memory_store import MemoryStore
from tests.sweep.tiny import result, scheduled

LRS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
SECTIONS: dict[str, Any] = {
    "grid": {"lr": LRS}, "base": {"epochs": 9}, "halving": {"rungs": [1, 3], "eta": 2},
}  # fmt: skip


def set_mark(folder: SweepFolder, digest: str, rung: int, top1: float) -> None:
    mark = {"epochs": rung, "val": {"top1": top1, "loss": 1.0}, "parameters": {}}
    folder.set_mark(digest, rung, mark)


def test_without_halving_what_has_no_result_is_left(store: MemoryStore, tmp_path: Path) -> None:
    folder, schedule = scheduled(store, tmp_path, {"grid": {"rank": [1, 2]}})
    first, second = schedule.trials()
    assert schedule.total == 2
    folder.finish(result(digest=first.digest))
    assert schedule.pending() == [Pending(second)]


def test_nobody_goes_on_before_all_have_reached_a_rung(store: MemoryStore, tmp_path: Path) -> None:
    folder, schedule = scheduled(store, tmp_path, SECTIONS)
    trials = schedule.trials()
    assert schedule.pending() == [Pending(trial, 1) for trial in trials]
    for number, trial in enumerate(trials[:-1]):
        set_mark(folder, trial.digest, 1, number / 10)
    assert schedule.pending() == [Pending(trials[-1], 1)]
    assert all(folder.result(trial.digest) is None for trial in trials)


def test_of_each_rung_one_in_eta_goes_on_and_the_rest_gets_its_result(
    store: MemoryStore, tmp_path: Path
) -> None:
    folder, schedule = scheduled(store, tmp_path, SECTIONS)
    trials = schedule.trials()
    for number, trial in enumerate(trials):
        set_mark(folder, trial.digest, 1, number / 10)
    # Of seven the best three, and of three the best one.
    assert schedule.pending() == [Pending(trial, 3) for trial in trials[4:]]
    for trial, top1 in zip(trials[4:], (0.1, 0.9, 0.5), strict=True):
        set_mark(folder, trial.digest, 3, top1)
    assert schedule.pending() == [Pending(trials[5])]
    folder.finish(result(digest=trials[5].digest))
    assert schedule.pending() == []
    found = [folder.result(trial.digest) for trial in trials]
    assert [one and (one.status, one.epochs) for one in found] == [
        *[("stopped", 1)] * 4, ("stopped", 3), ("complete", 2), ("stopped", 3),
    ]  # fmt: skip


def test_what_failed_does_not_go_on_and_what_ended_early_counts_as_it_ended(
    store: MemoryStore, tmp_path: Path
) -> None:
    folder, schedule = scheduled(store, tmp_path, SECTIONS)
    trials = schedule.trials()
    failed = result(digest=trials[0].digest, status="failed", metrics={}, reason="diverged")
    folder.finish(failed)
    val = {"val": {"top1": 0.99, "loss": 0.1}}
    folder.finish(result(digest=trials[1].digest, metrics=val))
    for number, trial in enumerate(trials[2:]):
        set_mark(folder, trial.digest, 1, number / 10)
    assert schedule.pending() == [Pending(trial, 3) for trial in trials[5:]]


def test_of_equals_the_first_goes_on(store: MemoryStore, tmp_path: Path) -> None:
    folder, schedule = scheduled(store, tmp_path, SECTIONS)
    for trial in schedule.trials():
        set_mark(folder, trial.digest, 1, 0.5)
    assert [one.trial.number for one in schedule.pending()] == [0, 1, 2]


def test_a_rung_beyond_a_trials_end_is_its_end(store: MemoryStore, tmp_path: Path) -> None:
    sections = {"grid": {"epochs": [2, 9]}, "halving": {"rungs": [3]}}
    _, schedule = scheduled(store, tmp_path, sections)
    assert [one.stop_epoch for one in schedule.pending()] == [None, 3]


def test_a_setting_goes_on_with_all_its_seeds_or_with_none(
    store: MemoryStore, tmp_path: Path
) -> None:
    sections = {
        "grid": {"lr": [0.1, 0.2, 0.3, 0.4]}, "seeds": [0, 1], "base": {"epochs": 9},
        "halving": {"rungs": [1], "eta": 2},
    }  # fmt: skip
    folder, schedule = scheduled(store, tmp_path, sections)
    trials = schedule.trials()
    # Means 0.5, 0.6, 0.4 and 0.7; the best of the first has the best of all.
    for trial, top1 in zip(trials, (1.0, 0.0, 0.6, 0.6, 0.4, 0.4, 0.9, 0.5), strict=True):
        set_mark(folder, trial.digest, 1, top1)
    assert schedule.pending() == [Pending(trials[at]) for at in (2, 3, 6, 7)]


def test_a_setting_that_failed_for_a_seed_goes_on_only_where_too_few_did_not(
    store: MemoryStore, tmp_path: Path
) -> None:
    sections = {
        "grid": {"lr": [0.1, 0.2]}, "seeds": [0, 1], "base": {"epochs": 9},
        "halving": {"rungs": [1], "eta": 2},
    }  # fmt: skip
    folder, schedule = scheduled(store, tmp_path, sections)
    trials = schedule.trials()
    folder.finish(result(digest=trials[0].digest, status="failed", metrics={}, reason="diverged"))
    for trial, top1 in zip(trials[1:], (0.9, 0.1, 0.2), strict=True):
        set_mark(folder, trial.digest, 1, top1)
    assert schedule.pending() == [Pending(trials[2]), Pending(trials[3])]
