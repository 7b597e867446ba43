"""The report's form, which sweeps, tables and pages rely on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from losa.adapt.report import AdaptReport, environment, read_report, write_report
from losa.adapt.train import adapt_on
from losa.config import AdaptConfig
from losa.device import Compute
from losa.errors import StoreError
from tests.adapt.memory_store import separable_store


def test_a_run_writes_the_fields_of_the_contract(tmp_path: Path) -> None:
    config = AdaptConfig(out=tmp_path, device="cpu", rank=2, epochs=2, batch_size=16)
    report = adapt_on(separable_store(), config)
    value = json.loads((tmp_path / "report.json").read_text())
    assert list(value) == [
        "version", "config", "store_id", "metrics", "parameters", "timing", "memory", "environment",
    ]  # fmt: skip
    for split in ("val", "test"):
        assert {"top1", "top5", "mean_per_class", "loss"} <= set(value["metrics"][split])
    assert set(value["timing"]) == {"seconds", "samples_per_second", "epochs"}
    assert set(value["memory"]) == {"peak_bytes", "peak_device_bytes"}
    assert value["memory"]["peak_device_bytes"] is None
    assert value["config"]["epochs"] == 2
    assert value["config"]["amp_dtype"] == "none"
    # 2 mixers of [2 6] and [2 5] down and up, with what they carry, and the head; counted apart.
    assert value["parameters"]["trainable"] == report.parameters["trainable"] > 0


def test_a_report_comes_back_as_it_was_written(tmp_path: Path) -> None:
    cpu = environment(Compute(torch.device("cpu")))
    report = AdaptReport(
        {"lr": 0.1}, "ab", {"val": {"top1": 1.0}}, {"trainable": 3}, {"seconds": 1.5},
        {"peak_bytes": None}, cpu,
    )  # fmt: skip
    write_report(tmp_path / "report.json", report)
    assert read_report(tmp_path / "report.json") == report


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not sound JSON"),
        ('{"version": 9}', "has version 9"),
        ('{"version": 1, "config": {}}', "is not a report"),
    ],
)
def test_a_damaged_report_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(StoreError, match=message):
        read_report(path)


def test_a_report_refuses_what_json_cannot_hold(tmp_path: Path) -> None:
    report = AdaptReport({}, "ab", {"val": {"loss": float("nan")}}, {}, {}, {}, {})
    with pytest.raises(ValueError, match="JSON"):
        write_report(tmp_path / "report.json", report)
