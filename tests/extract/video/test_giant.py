"""Claims of a video backbone of the largest shape, shortened: it runs end to end in bounded memory.

A block of ViViT-e has 68 million weights; two of them, tubelets and positions are 0.58 GB in
float32.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from losa.extract.profiles import profile_of
from tests.extract.clips.clip_folder import moving, write_clip

log = logging.getLogger(__name__)
pytestmark = pytest.mark.slow

MODEL = "vivit_e:depth=2"
MOST_EXTRACT = 2.0e9
MOST_ADAPT = 1.2e9
"""Bytes resident at once, of one process and of torch's own libraries with it."""


def losa(*arguments: object) -> tuple[dict[str, Any], int]:
    """Run a command in a process of its own: its result, and the most bytes it had resident."""
    command = [sys.executable, "-m", "losa", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    result: dict[str, Any] = json.loads(told.splitlines()[-1])
    return result, usage.ru_maxrss * 1024


def test_the_largest_backbone_with_two_blocks_runs_end_to_end_in_bounded_memory(
    tmp_path: Path,
) -> None:
    clip = moving(frames=8, start=0, is_left=False)
    write_clip(tmp_path / "clips" / "train" / "a" / "0.mp4", clip)
    store = tmp_path / "features.zarr"
    flags = ("--weights", "random", "--frames", 8, "--tokens", "pool:1x2x2", "--taps", "all")
    place = ("--dataset", f"folder:{tmp_path / 'clips'}", "--store", store, "--batch-size", 1)
    _, extracting = losa(
        *("extract", "--model", MODEL, *flags, *place),
        *("--decoder", "pyav", "--num-workers", 0, "--device", "cpu"),
    )
    _, adapting = losa(
        *("adapt", "--store", store, "--out", tmp_path / "run", "--epochs", 1),
        *("--batch-size", 1, "--val-fraction", 0, "--device", "cpu"),
    )
    weights = profile_of(MODEL).parameters * 4
    assert weights < extracting < MOST_EXTRACT
    assert adapting < MOST_ADAPT
    log.info("extract %.2f GB, adapt %.2f GB", extracting / 1e9, adapting / 1e9)
