"""Optuna suggests over a sweep's own files, and is told of nothing else."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

from losa.errors import UsageError
from losa.sweep.asking import Suggested, optuna_module
from losa.sweep.folder import SweepFolder, recorded
from losa.sweep.strategy import parse_strategy
from losa.sweep.trials import TrialMaker, base_config
from tests.adapt.memory_store import MemoryStore
from tests.sweep.tiny import BASE, FILE, result

LINEAR = {"adaptor": {"choice": ["linear"]}}
SPACE: dict[str, Any] = {
    "lr": {"log-uniform": [0.001, 0.1]},
    "either": [LINEAR, {"rank": {"int": [1, 4]}, "pool": {"choice": ["cls", "mean"]}}],
}


def suggested(store: MemoryStore, root: Path, **changes: Any) -> tuple[SweepFolder, Suggested]:
    pytest.importorskip("optuna", reason="optuna is not installed: pip install 'losa[sweep]'")
    asked = {"trials": 9, "together": 3, "space": SPACE, **changes}
    sections = {"base": dict(BASE), "optuna": asked}
    strategy = parse_strategy(sections, FILE)
    folder, base = SweepFolder(root), base_config(strategy, Path("s.zarr"))
    folder.begin_or_join(recorded(sections, base, store.store_id))
    assert strategy.optuna is not None
    return folder, Suggested(folder, TrialMaker(store, base, folder.trials), strategy.optuna)


def settings(schedule: Suggested) -> list[dict[str, Any]]:
    return [dict(trial.setting) for trial in schedule.trials()]


def test_so_many_are_open_at_a_time_and_every_process_sees_the_same(
    store: MemoryStore, tmp_path: Path
) -> None:
    _, ours = suggested(store, tmp_path)
    _, theirs = suggested(store, tmp_path)
    assert [one.trial.number for one in ours.pending()] == [0, 1, 2]
    assert settings(theirs) == settings(ours)
    assert [one.trial.digest for one in theirs.pending()] == [
        one.trial.digest for one in ours.pending()
    ]


def test_a_result_makes_room_for_the_next_until_there_are_enough(
    store: MemoryStore, tmp_path: Path
) -> None:
    folder, schedule = suggested(store, tmp_path)
    while pending := schedule.pending():
        assert len(pending) <= 3
        folder.finish(result(digest=pending[0].trial.digest))
    assert len(schedule.trials()) == schedule.total == 9
    for setting in settings(schedule):
        assert 0.001 <= setting["lr"] <= 0.1
        assert (setting.get("adaptor") == "linear") == ("rank" not in setting)
        assert setting.get("pool") in (None, "cls", "mean")


def test_what_is_known_is_told(store: MemoryStore, tmp_path: Path) -> None:
    """A search that is told of a best rate ends nearer to it than one that is told of none."""
    far = []
    for is_told in (True, False):
        space = {"lr": {"log-uniform": [1e-4, 1.0]}}
        changes = {"trials": 40, "together": 1, "space": space}
        folder, schedule = suggested(store, tmp_path / str(is_told), **changes)
        while pending := schedule.pending():
            rate = pending[0].trial.config.lr
            score = 1 - abs(rate - 0.01) if is_told else 0.5
            val = {"val": {"top1": score, "loss": 1.0}}
            folder.finish(result(digest=pending[0].trial.digest, metrics=val))
        last = [setting["lr"] for setting in settings(schedule)[-15:]]
        far.append(sorted(abs(rate - 0.01) for rate in last)[7])
    assert far[0] < far[1]


def test_a_failed_trial_is_told_of_and_its_place_is_not_filled(
    store: MemoryStore, tmp_path: Path
) -> None:
    folder, schedule = suggested(store, tmp_path, trials=2, together=1)
    first = schedule.pending()[0].trial
    folder.finish(result(digest=first.digest, status="failed", metrics={}, reason="diverged"))
    assert [one.trial.number for one in schedule.pending()] == [1]


def test_without_optuna_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    found = builtins.__import__

    def lacking(name: str, *rest: Any) -> Any:
        if name == "optuna":
            raise ImportError(name)
        return found(name, *rest)

    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(UsageError, match=r"optuna: is not installed; pip install 'losa\[sweep\]'"):
        optuna_module()
