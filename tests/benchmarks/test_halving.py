"""The benchmark of halving looks up in the full grid what the halved one found."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from benchmarks.halving import compared, contest
from losa.sweep.choosing import Setting
from tests.store.build import small_plan, small_store
from tests.sweep.tiny import result


def setting(rank: int, val: float, test: float) -> Setting:
    metrics = {"val": {"top1": val, "loss": 1.0}, "test": {"top1": test, "loss": 1.0}}
    config = {"rank": rank, "lr": 0.1, "seed": 0}
    found = result(digest=f"{rank}", config=config, metrics=metrics)
    return Setting((found,), found)


def test_what_was_found_is_measured_against_the_first_of_the_full_grid() -> None:
    full = [setting(4, 0.9, 0.75), setting(8, 0.8, 0.7), setting(16, 0.7, 0.875)]
    found = compared(full, full[2])
    assert (found["place"], found["settings"]) == (3, 3)
    assert found["below"] == {"val": pytest.approx(20.0), "test": pytest.approx(-12.5)}
    assert found["same_top1"]
    assert not compared(full, setting(16, 0.6, 0.875))["same_top1"]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_both_sweeps_are_trained_and_their_costs_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.halving.RANKS", (1,))
    monkeypatch.setattr("benchmarks.halving.RATES", (1e-3, 1e-2, 1e-1))
    small_store(tmp_path / "s.zarr", small_plan({"train": 24, "val": 9, "test": 9}))
    given: dict[str, Any] = {"epochs": 2, "rungs": [1], "eta": 3, "seeds": 1, "taps": "all"}
    found = contest(tmp_path / "s.zarr", tmp_path / "out", argparse.Namespace(**given))
    assert found["epochs"] == {"full": 6, "halved": 4, "share": 4 / 6}
    assert found["settings"] == 3
