"""Claims of benchmarks.epochs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks import epochs
from losa.adapt.progress import Phase, ProgressEvent
from tests.benchmarks.conftest import Published

ARGV = ["--model", "vit_tiny_patch16_224", "--img-size", "32", "--images", "4", "--rounds", "1"]


def test_ratios_are_live_seconds_over_cached_ones(published: Published, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="the extra bench is not installed")
    assert epochs.main([*ARGV, "--taps", "2,11", "--dir", str(tmp_path)]) == 0
    found = published("epochs")
    assert set(found["ratios"]) == set(epochs.TARGETS) == found["seconds"].keys() - {epochs.CACHED}
    (cached,) = found["seconds"][epochs.CACHED]
    for name, ratio in found["ratios"].items():
        (live,) = found["seconds"][name]
        assert ratio["best"] == pytest.approx(live / cached, rel=1e-3)
        assert ratio["hit"] == (ratio["best"] >= epochs.TARGETS[name])
    assert not list(tmp_path.glob("losa-bench*"))


def test_an_epoch_lasts_from_the_last_of_validation_to_the_last_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([1.0, 2.0, 5.0, 7.0, 10.0, 13.0, 17.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    watch = epochs.Stopwatch()
    told: list[tuple[Phase, int, int]] = [
        *(("train", 0, 1), ("train", 0, 2), ("val", 0, 1), ("val", 0, 2)),
        *(("train", 1, 1), ("train", 1, 2), ("test", 1, 1)),
    ]
    for phase, epoch, step in told:
        watch(ProgressEvent(phase, epoch, 2, step, 2, {}))
    assert watch.seconds == [6.0]


def test_pictures_are_of_two_classes_with_as_many_in_train_as_asked(tmp_path: Path) -> None:
    root = epochs.pictures(tmp_path, 5)
    found = [path.relative_to(root).parts for path in root.rglob("*.jpg")]
    assert sum(split == "train" for split, _, _ in found) == 5
    assert {label for _, label, _ in found} == {"a", "b"}
