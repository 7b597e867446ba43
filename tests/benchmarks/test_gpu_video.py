from __future__ import annotations

import argparse
from typing import Any

import pytest
import torch

from benchmarks import gpu_video
from losa.device import resolve_compute

TINY = [
    *("--model", "vivit_b:depth=3", "--rival", "vivit_b:depth=2", "--frames", "4"),
    *("--img-size", "32", "--batch-size", "2", "--classes", "3", "--rounds", "1", "--rank", "2"),
]


def test_without_the_device_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert gpu_video.main([]) == 0
    assert "gpu_video: not measured: --device: cuda" in capsys.readouterr().err


def test_the_three_parts_are_measured_on_a_cpu_with_a_tiny_backbone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(gpu_video, "publish", lambda _name, _argv, found: told.append(found))
    assert gpu_video.main([*TINY, "--device", "cpu"]) == 0
    (found,) = told
    assert set(found["rows"]) == {"extract", "adapt", "fine-tune"}
    assert all(row["best"] > 0 and row["peak_bytes"] is None for row in found["rows"].values())
    assert found["parameters"] > found["rival_parameters"] > 7_000_000
    assert found["side_parameters"] < 100_000
    # The class token and one mean patch of each of two steps, at two taps, in float16.
    assert found["sample_bytes"] == 2 * (1 + 2 * 1) * 768 * 2
    assert found["adapt_to_fine_tune"]["memory"] is None


def test_tuning_the_rival_changes_all_of_its_weights() -> None:
    options = argparse.Namespace(
        img_size=32, taps="last", tokens="all", frames=4, classes=3, batch_size=2
    )
    compute = resolve_compute("cpu", "none")
    rival = gpu_video.Whole(gpu_video.backbone_of("vivit_b:depth=1", options, compute), 3)
    before = {name: weight.detach().clone() for name, weight in rival.named_parameters()}
    clips = rival.normalised(2)
    gpu_video.step_of(rival, lambda: rival(clips), options, compute)()
    assert all(not torch.equal(weight, before[name]) for name, weight in rival.named_parameters())
