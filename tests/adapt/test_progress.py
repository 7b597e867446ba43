"""The events that callers see."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from losa.adapt.progress import ProgressEvent
from losa.adapt.train import adapt_on
from losa.config import AdaptConfig
from tests.adapt.memory_store import separable_store


def test_an_event_cannot_be_changed_by_who_gets_it() -> None:
    event = ProgressEvent("train", 0, 3, 1, 6)
    assert event.metrics == {}
    with pytest.raises(FrozenInstanceError):
        event.step = 2  # type: ignore[misc]  # frozen: the claim


def test_progress_counts_every_batch_and_ends_each_epoch_with_metrics(
    tmp_path: Path,
) -> None:
    values: dict[str, Any] = {"rank": 2, "epochs": 3, "batch_size": 16, "checkpoint_seconds": 1e9}
    config = AdaptConfig(out=tmp_path, device="cpu", **values)
    seen: list[ProgressEvent] = []
    report = adapt_on(separable_store(), config, progress=seen.append)
    trained = [(e.epoch, e.step) for e in seen if e.phase == "train"]
    assert trained == [(epoch, step) for epoch in range(3) for step in range(1, 7)]
    ends = [e for e in seen if e.metrics]
    assert [(e.phase, e.epoch) for e in ends] == [("val", 0), ("val", 1), ("val", 2)]
    assert {"top1", "loss", "train_loss"} == set(ends[0].metrics)
    assert report.timing["epochs"] == 3
