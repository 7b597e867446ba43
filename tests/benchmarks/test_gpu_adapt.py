from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_adapt, sidestep
from benchmarks.sidestep import Shape
from benchmarks.stores import random_plan, random_planes, random_store
from losa.features import FeatureSpec

CPU = torch.device("cpu")


def test_without_cuda_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_adapt.main([]) == 0
    assert capsys.readouterr().err == "M12: not measured: torch sees no CUDA device here\n"


def test_an_epoch_is_measured_against_its_slowest_part(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, toy: FeatureSpec
) -> None:
    monkeypatch.setattr(gpu_adapt, "VIT_G", toy)
    # Memory is pinned for a device alone, and there is none.
    monkeypatch.setattr(gpu_adapt.Epoch, "copies", lambda _: 1e-9)
    path = random_store(tmp_path / "store", random_plan(toy, 64), random_planes(toy, 32))
    options = argparse.Namespace(rows=64, batch_size=32, rounds=2, threads=1)
    found = gpu_adapt.measured(path, options, CPU)
    seconds = {name: row["best"] for name, row in found["seconds"].items()}
    assert found["slowest"] in ("disk", "network")
    assert set(seconds) == {*gpu_adapt.PARTS, gpu_adapt.WHOLE}
    assert found["hits"]["share"] == (found["share"]["best"] >= gpu_adapt.LEAST_SPEED)


def test_a_step_is_measured_as_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (gpu_adapt, sidestep):
        monkeypatch.setattr(module, "GEMM", 64)
    found = gpu_adapt.step_times(Shape(3, 9, 16, 4, rank=2), CPU, 2)
    assert found["of_floor"] > 0
    assert found["kept_bytes_a_sample"]["losa"] < found["kept_bytes_a_sample"]["plain eager"]
