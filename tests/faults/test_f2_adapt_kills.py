"""F2 of training: ``losa adapt`` killed at random steps, until it ends as if it had not been."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from losa.adapt import train
from losa.adapt.trial import Trial
from losa.cli import main
from tests.faults.figures import publish
from tests.faults.processes import die, ended, forked
from tests.store.build import samples, small_plan, small_store

WARM = train.adapt
"""What a command imports when it is called: here but once, before any process is forked."""

QUICK_KILLS = 3
PLAN = small_plan({"train": 48, "val": 12, "test": 12})
SWITCHES = (
    ("--dropout", "0.1", "--mixup", "0.3"),
    ("--ema", "0.9", "--class-weights", "balanced", "--head-lr", "0.03"),
    ("--targets", "numbers.csv", "--ema", "0.99", "--adaptor", "linear-all"),
    ("--targets", "labels.csv", "--class-weights", "effective", "--mixup", "0.2"),
)


@pytest.mark.parametrize(
    "kills", [QUICK_KILLS, pytest.param(50, marks=pytest.mark.faults, id="whole")]
)
@pytest.mark.timeout(1200)
def test_an_adapt_killed_at_random_ends_with_the_same_bits(
    kills: int, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(memory)
    small_store(memory / "s.zarr", PLAN)
    write_targets()
    dice, killed, places = random.Random(7), 0, set[tuple[int, int]]()
    runs = 0
    while killed < kills:
        flags = SWITCHES[runs % len(SWITCHES)]
        whole, out = Path(f"{runs}-whole"), Path(f"{runs}-killed")
        assert ended(adapting(whole, flags, dice)) == 0
        while not (out / "report.json").exists():
            code = ended(adapting(out, flags, dice, dies_after=dice.randint(1, 12)))
            assert code in (0, -signal.SIGKILL)
            if code:
                killed += 1
                places.add(place_of(out))
        assert_same(whole, out)
        runs += 1
    if kills > QUICK_KILLS:
        publish(
            "f2-adapt", {"kills": killed, "runs": runs, "identical": runs, "places": len(places)}
        )


def write_targets() -> None:
    keys = [(sample.key, number) for split in samples(PLAN).values()
            for number, sample in enumerate(split)]  # fmt: skip
    numbers = [f"{key},{number % 7 + 0.5},{-number}" for key, number in keys]
    Path("numbers.csv").write_text("\n".join(["key,age,size", *numbers]))
    labels = [f"{key},{';'.join('abc'[: number % 4])}" for key, number in keys]
    Path("labels.csv").write_text("\n".join(["key,labels", *labels]))


def die_after(steps: int, seconds: float) -> None:
    """Kill this process so long after its n-th step: in another, or while a file is written."""
    left = [steps]
    step = Trial.step

    def counted(trial: Trial, *batch: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            threading.Timer(seconds, die).start()
        step(trial, *batch)

    setattr(Trial, "step", counted)  # noqa: B010 -- of this process alone, which is about to die


def adapting(
    out: Path, flags: tuple[str, ...], dice: random.Random, *, dies_after: int | None = None
) -> int:
    """The command in a process of its own; snapshots come often, or at the end of an epoch."""
    seconds = dice.uniform(0.0, 0.02)
    config = Path("often.yaml" if dice.random() < 0.8 else "seldom.yaml")
    config.write_text(f"checkpoint_seconds: {0 if config.stem == 'often' else 1e9}\n")

    def command() -> None:
        # What ran in this process before may have left a pool of threads that does not fork.
        torch.set_num_threads(1)
        if dies_after is not None:
            die_after(dies_after, seconds)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        sys.argv = [
            "losa", "adapt", "--store", "s.zarr", "--out", str(out), "--epochs", "4", "-b", "6",
            "--rank", "2", "--lr", "0.01", "--device", "cpu", "--config", str(config), *flags,
        ]  # fmt: skip
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code in (0, None)

    return forked(command)


def place_of(run: Path) -> tuple[int, int]:
    """Epoch and step that a resume begins at."""
    path = run / "last.safetensors"
    if not path.exists():
        return 0, 0
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    state = json.loads(header["__metadata__"]["losa"])["state"]
    return state["epoch"], state["step"]


def assert_same(whole: Path, killed: Path) -> None:
    """The same bits in all weights and moments, the same lines, the same metrics."""
    assert (killed / "best.safetensors").read_bytes() == (whole / "best.safetensors").read_bytes()
    left, right = (safetensors.torch.load((run / "last.safetensors").read_bytes())
                   for run in (whole, killed))  # fmt: skip
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
    found = (killed / "metrics.jsonl").read_bytes()
    assert found == (whole / "metrics.jsonl").read_bytes()
    assert [json.loads(line)["epoch"] for line in found.splitlines()] == [1, 2, 3, 4]
    reports: list[Any] = [json.loads((run / "report.json").read_text()) for run in (whole, killed)]
    assert reports[0]["metrics"] == reports[1]["metrics"]
