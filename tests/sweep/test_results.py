"""Results come back as they were written, and what is no result is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from losa.config import AdaptConfig
from losa.errors import StoreError
from losa.sweep.results import best_of_curve, read_result, stop_of
from losa.sweep.trials import SweepTrial
from tests.sweep.tiny import BASE, result


def test_a_result_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(result().to_bytes())
    assert read_result(path) == result()


@pytest.mark.parametrize(
    ("change", "told"),
    [({"version": 2}, "has version 2"), ({"more": 1}, "is not a result"), (None, "not sound JSON")],
)
def test_what_is_no_result_is_refused(
    tmp_path: Path, change: dict[str, int] | None, told: str
) -> None:
    path = tmp_path / "result.json"
    values = json.loads(result().to_bytes())
    path.write_text("{" if change is None else json.dumps({**values, **change}))
    with pytest.raises(StoreError, match=told):
        read_result(path)


def test_the_best_epoch_counts_and_of_equals_the_lower_loss() -> None:
    vals = [{"top1": 0.5, "loss": 3}, {"top1": 0.6, "loss": 2}, {"top1": 0.6, "loss": 1}, None]
    assert best_of_curve([{"val": val} for val in vals]) == vals[2]


def test_a_trial_left_behind_has_val_and_no_test() -> None:
    trial = SweepTrial(0, "d" * 16, {}, AdaptConfig(**BASE))
    mark = {"epochs": 3, "val": {"top1": 0.5, "loss": 1}, "parameters": {"trainable": 5}}
    found = stop_of(trial, "s", mark)
    assert (found.status, found.epochs, found.parameters) == ("stopped", 3, {"trainable": 5})
    assert list(found.metrics) == ["val"]
    assert found.reason == "left behind by halving after epoch 3"
