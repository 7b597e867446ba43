"""The gauges of a run."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
import torch

from losa.adapt import usage
from losa.adapt.usage import Usage, anonymous_bytes

CPU = torch.device("cpu")


def test_anonymous_memory_counts_what_is_allocated() -> None:
    before = anonymous_bytes()
    if before is None:
        pytest.skip("this system does not tell")
    # Mapped, for an allocator may give again what other tests have left it.
    with mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        held.write(bytes(len(held)))
        after = anonymous_bytes()
        assert after is not None
        assert after - before > 0.9 * len(held)


def test_a_system_that_does_not_tell_gives_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(usage, "STATUS", tmp_path / "missing")
    found = Usage(CPU)
    found.sample()
    assert found.memory() == {"peak_bytes": None, "peak_device_bytes": None}


def test_time_samples_and_peaks_go_on_from_before() -> None:
    before = {
        "seconds": 100.0, "train_seconds": 50.0, "samples": 200,
        "peak_bytes": 1 << 60, "peak_device_bytes": None,
    }  # fmt: skip
    found = Usage(CPU, before)
    found.samples += 100
    found.train_seconds += 10.0
    found.sample()
    assert 100.0 < found.seconds < 101.0
    assert found.timing(3)["samples_per_second"] == 5.0
    assert found.timing(3)["epochs"] == 3
    assert found.memory()["peak_bytes"] == 1 << 60
    assert found.to_json().keys() == before.keys()


def test_a_run_without_training_has_no_rate() -> None:
    assert Usage(CPU).timing(0)["samples_per_second"] == 0.0
