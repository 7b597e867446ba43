"""Claims of the whole pipeline, by the command line alone, in processes of their own."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from losa.store import open_store
from tests.extract.inat_fixture import write_inat2018
from tests.extract.picture_folder import picture_folder
from tests.store.build import small_plan, small_store, tree

TINY = ("--model", "vit_tiny_patch16_224", "--weights", "random", "--img-size", "32", "-b", "4")


def start(cwd: Path, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "losa", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(cwd: Path, *arguments: object) -> Any:
    """The JSON result of a command that must succeed."""
    process = start(cwd, *arguments)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return json.loads(out)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_vit_g_on_inat2018_and_adapt_need_no_other_flag(tmp_path: Path) -> None:
    write_inat2018(tmp_path / "data")
    extracted = run(
        tmp_path,
        *("extract", "--model", "vit_g", "--dataset", "inat2018", "--data-dir", "data"),
        *("--weights", "random"),
    )
    assert {name: item["rows"] for name, item in extracted["splits"].items()} == {
        "train": 2,
        "val": 2,
    }
    store = open_store(tmp_path / "features.zarr")
    # Every 4th of 40 blocks, 16 x 16 patches and CLS, 1408 channels: Table 2 of arXiv 2106.04560.
    assert store.spec.taps == tuple(range(3, 40, 4))
    assert store.spec.shape == (10, 257, 1408)
    report = run(tmp_path, "adapt", "--store", "features.zarr")
    assert set(report["metrics"]) == {"val"}
    assert Path(tmp_path / report["config"]["out"] / "report.json").is_file()


def test_without_weights_and_hub_the_error_names_file_and_source(tmp_path: Path) -> None:
    write_inat2018(tmp_path / "data")
    flags = ("extract", "--model", "vit_g", "--dataset", "inat2018", "--data-dir", "data")
    process = start(tmp_path, *flags, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "hub"))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 6
    last = err.splitlines()[-1]
    assert last.startswith("losa: error: --weights: ")
    assert "vit_giant_patch14_clip_224.laion2b" in last
    assert "model.safetensors" in last
    assert not (tmp_path / "features.zarr").exists()


@pytest.mark.parametrize(
    ("number", "words", "code", "grace"),
    [
        pytest.param(*(signal.SIGINT, "interrupted", 130, "25"), marks=pytest.mark.slow),
        (signal.SIGTERM, "told to end (SIGTERM)", 75, "25"),
        pytest.param(*(signal.SIGUSR1, "told to end (SIGUSR1)", 75, "0"), marks=pytest.mark.slow),
    ],
)
def test_a_signal_during_extraction_is_its_exit_code_and_loses_nothing(
    tmp_path: Path, number: signal.Signals, words: str, code: int, grace: str
) -> None:
    picture_folder(tmp_path / "data", {"train": 60})
    flags = ("extract", "--dataset", "folder:data", *TINY, "--shard-rows", "8", "--grace", grace)
    process = start(tmp_path, *flags)
    commits = tmp_path / "features.zarr/.losa/commits/train"
    stop_when(process, number, lambda: commits.is_dir() and any(commits.iterdir()))
    out, err = process.communicate(timeout=60)
    before = 8 * len(list(commits.iterdir()))
    assert 0 < before < 180
    assert (process.returncode, out) == (code, "")
    assert err.splitlines()[-1] == (
        f"losa: error: {tmp_path / 'features.zarr'}: {words} with {before} of 180 rows done; "
        f"go on with: {shlex.join(['losa', *flags])}"
    )
    for left in ("claims/train", "tmp"):
        assert list((tmp_path / "features.zarr/.losa" / left).iterdir()) == []
    assert run(tmp_path, *flags)["computed_rows"] == 180 - before


def test_a_second_signal_ends_an_extraction_at_once(tmp_path: Path) -> None:
    picture_folder(tmp_path / "data", {"train": 60})
    # One shard, which the first signal alone would let it finish.
    process = start(tmp_path, "extract", "--dataset", "folder:data", *TINY, "--grace", "999")
    claims = tmp_path / "features.zarr/.losa/claims/train"
    stop_when(process, signal.SIGUSR1, lambda: claims.is_dir() and any(claims.iterdir()))
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert err.splitlines()[-1] == "losa: error: terminated; run the same command again to go on"


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 75, marks=pytest.mark.slow)],
)
def test_a_signal_during_training_is_its_exit_code_and_the_run_goes_on_from_there(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    small_store(tmp_path / "features.zarr", small_plan({"train": 40, "val": 9}))
    flags = ("adapt", "--out", "run", "--epochs", "60", "-b", "4", "--rank", "2")
    process = start(tmp_path, *flags)
    metrics = tmp_path / "run/metrics.jsonl"
    stop_when(process, number, metrics.exists)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    report = run(tmp_path, *flags)
    again = run(tmp_path, *flags[:2], "whole", *flags[3:])
    for name in ("best.safetensors", "metrics.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert report["metrics"] == again["metrics"]


def stop_when(
    process: subprocess.Popen[str], number: signal.Signals, ready: Callable[[], bool]
) -> None:
    """Send a signal as soon as something is so, while the process still runs."""
    while not ready():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    assert process.poll() is None, "it ended before it could be stopped"
    process.send_signal(number)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_20_times_at_random_the_command_line_gives_the_same_bytes(tmp_path: Path) -> None:
    picture_folder(tmp_path / "data", {"train": 40, "val": 10})
    flags = ("extract", "--dataset", "folder:data", *TINY, "--shard-rows", "4", "-j", "1")
    run(tmp_path, *flags, "--store", "whole.zarr")
    started = time.monotonic()
    run(tmp_path, *flags, "--store", "timed.zarr")
    duration = time.monotonic() - started
    draw = random.Random(1)
    kills = 0
    while kills < 20:
        name = f"{kills}.zarr"
        for _ in range(3):
            process = start(tmp_path, *flags, "--store", name)
            try:
                process.wait(draw.uniform(0.5 * duration, duration))
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
            process.communicate()
        run(tmp_path, *flags, "--store", name)
        assert tree(tmp_path / name) == tree(tmp_path / "whole.zarr")
