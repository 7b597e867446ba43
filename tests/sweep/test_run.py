"""``losa sweep``: from a file to the best setting, its exit codes and its one line."""

from __future__ import annotations

import csv
import json
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from losa.adapt.cohortstep import CohortStep
from losa.errors import InputError, SkippedError, StoreError, UsageError
from losa.sweep.processes import MEMBER
from losa.sweep.run import Sweep, check_failures, read_sweep
from tests.command import Losa
from tests.store.build import small_plan, small_store
from tests.sweep.tiny import BASE


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small_store(Path("s.zarr"), small_plan({"train": 24, "val": 9, "test": 9}))


def write(name: str = "sweep.yaml", **sections: Any) -> Path:
    path = Path(name)
    base = {**BASE, "epochs": 1, **sections.pop("base", {})}
    path.write_text(yaml.safe_dump({"base": base, **sections}))
    return path


def test_a_sweep_ends_with_its_best_setting_a_table_and_a_command(losa: Losa) -> None:
    config = write(grid={"rank": [1, 2]}, seeds=[0, 1], base={"warmup_epochs": 3.0})
    done = losa("sweep", "--store", "s.zarr", "--config", config, "--out", "out")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    counts = {name: found[name] for name in ("trials", "complete", "stopped", "failed", "settings")}
    assert counts == {"trials": 4, "complete": 4, "stopped": 0, "failed": 0, "settings": 2}
    rows = list(csv.DictReader(Path(found["results"]).read_text().splitlines()))
    means = {
        rank: sum(float(row["val_top1"]) for row in rows if row["rank"] == rank) / 2
        for rank in ("1", "2")
    }
    assert found["best"]["val"]["top1"]["mean"] == pytest.approx(max(means.values()))
    assert "--data-seed 0" in found["best"]["command"]
    assert "4.0/4" in done.err
    # The winner's command gives the winner's run.
    again = losa(*shlex.split(found["best"]["command"])[1:])
    assert again.code == 0, again.err
    assert Path("out/winner/report.json").exists()
    report = json.loads((Path(found["best"]["run"]) / "report.json").read_text())
    assert json.loads(again.out)["metrics"]["val"]["top1"] == report["metrics"]["val"]["top1"]


def test_a_sweep_goes_on_without_its_file(losa: Losa) -> None:
    config = write(grid={"rank": [1, 2]})
    first = losa("sweep", "--store", "s.zarr", "--config", config, "--out", "out")
    next(Path("out/trials").glob("*/result.json")).unlink()
    config.unlink()
    second = losa("sweep", "--out", "out")
    assert second.code == 0, second.err
    assert json.loads(second.out) == json.loads(first.out)


def test_failed_trials_cost_exit_code_8_and_have_their_reasons(losa: Losa) -> None:
    config = write(grid={"lr": [0.01, 1e30]})
    done = losa("sweep", "--store", "s.zarr", "--config", config, "--out", "out")
    assert done.code == 8
    assert "1 of 2 trials failed" in done.err
    assert json.loads(done.out)["complete"] == 1
    assert "not finite" in Path("out/results.csv").read_text()


def test_a_file_may_say_where_and_a_flag_wins() -> None:
    config = write(store="s.zarr", workers=3, out="a", grid={"rank": [1]})
    settings, sections, file = read_sweep({"out": Path("b")}, config)
    assert (settings.store, settings.workers, settings.out) == (Path("s.zarr"), 3, Path("b"))
    assert set(sections) == {"base", "grid"}
    assert file == config


@pytest.mark.parametrize(
    ("sections", "flags", "error", "told"),
    [
        ({"workers": 0}, {}, InputError, "sweep.yaml: --workers .*, not 0"),
        ({}, {"workers": 0}, UsageError, "flags: --workers"),
    ],
)
def test_settings_that_cannot_be_meant_are_told(
    sections: dict[str, Any], flags: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        read_sweep(flags, write(grid={"rank": [1]}, **sections))


def test_neither_file_nor_sweep_is_a_mistake() -> None:
    with pytest.raises(StoreError, match="give --config"):
        read_sweep({"out": Path("nothing")}, None)


def test_rungs_that_nothing_reaches_are_a_mistake(losa: Losa) -> None:
    config = write(grid={"rank": [1, 2]}, halving={"rungs": [1]})
    done = losa("sweep", "--store", "s.zarr", "--config", config)
    assert done.code == 3
    assert "halving.rungs ends at 1, not before epochs, 1" in done.err


def test_mistakes_of_a_file_cost_exit_code_3_and_begin_nothing(losa: Losa) -> None:
    config = write(grid={"rnk": [1]}, lits=[{}])
    done = losa("sweep", "--store", "s.zarr", "--config", config, "--out", "out")
    assert done.code == 3
    assert "did you mean rank" in done.err
    assert "did you mean list" in done.err
    assert not Path("out").exists()


def test_very_many_trials_cost_exit_code_2(losa: Losa) -> None:
    axis = list(range(1, 102))
    config = write(grid={"rank": axis, "seed": axis.copy()})
    done = losa("sweep", "--store", "s.zarr", "--config", config, "--out", "out")
    assert done.code == 2
    assert "10,201 trials; give --yes" in done.err


def test_a_process_of_a_sweep_prints_nothing(losa: Losa, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MEMBER, "0/2")
    config = write(grid={"rank": [1]})
    done = losa("sweep", "--store", "s.zarr", "--config", config, "--out", "out")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert len(list(Path("out").glob("trials/*/result.json"))) == 1


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 75, "pre-empted")],
)
def test_a_sweep_that_is_told_to_end_says_so_in_its_last_line(
    losa: Losa, monkeypatch: pytest.MonkeyPatch, number: int, code: int, word: str
) -> None:
    learn = CohortStep.learn

    def told(step: CohortStep, *batch: Any) -> None:
        signal.raise_signal(number)
        learn(step, *batch)

    monkeypatch.setattr(CohortStep, "learn", told)
    flags = ("--store", "s.zarr", "--config", write(grid={"rank": [1, 2]}), "--out", "out")
    done = losa("sweep", *flags)
    assert done.code == code
    last = done.err.splitlines()[-1]
    assert last == f"losa: error: {word}; run the same command again to go on"
    # One of several processes leaves these words to the one that started it.
    monkeypatch.setenv(MEMBER, "0/2")
    again = losa("sweep", *flags)
    assert (again.code, again.err) == (code, "")


@pytest.mark.slow
def test_two_processes_share_a_sweep(losa: Losa) -> None:
    config = write(grid={"rank": [1, 2]}, halving={"rungs": [1]}, base={"epochs": 2})
    flags = ("--store", "s.zarr", "--config", config, "--out", "out", "--workers", 2)
    done = losa("sweep", *flags)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["complete"], found["stopped"]) == (1, 1)


def test_a_sweep_of_nothing_but_failures_has_no_best() -> None:
    settings, sections, file = read_sweep({"store": Path("s.zarr")}, write(grid={"lr": [1e30]}))
    sweep = Sweep(settings, sections, file)
    sweep.train()
    found = sweep.conclude()
    assert found["best"] is None
    with pytest.raises(SkippedError, match="1 of 1 trials failed"):
        check_failures(found)
