"""Cohorts' claims: every trial is what it would be alone, to the bit, and harms no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from losa.adapt.checkpoint import load_adaptor
from losa.adapt.cohort import CohortTrial, Outcome, adapt_cohort, can_share
from losa.adapt.progress import ProgressEvent
from losa.adapt.train import adapt_on
from losa.config import AdaptConfig
from losa.errors import UsageError
from losa.features import FeatureSpec, TokenGrid
from tests.adapt.memory_store import MemoryStore, separable_store

Several = tuple[dict[str, Any], ...]

UNLIKE: Several = (
    {"rank": 4},
    {"rank": 8, "lr": 0.03, "weight_decay": 0.1, "seed": 1},
    {"rank": 4, "token_rank": 8, "dropout": 0.3, "seed": 2},
    {"rank": 2, "dropout": 0.2},
    {"rank": 4, "taps": "3", "seed": 3, "head_lr": 0.001},
    {"rank": 4, "mixup": 0.4, "seed": 4},
    {"rank": 4, "ema": 0.9, "label_smoothing": 0.0, "class_weights": "balanced"},
    {"rank": 4, "epochs": 2, "warmup_epochs": 0.0},
    {"rank": 4, "lr": 0.3, "patience": 0},
    {"rank": 4, "residual": "stream", "order": "token-channel"},
    {"rank": 4, "mixer_norm": True},
    {"rank": 4, "share_mixers": True},
    {"rank": 4, "start": "first"},
    {"rank": 4, "standardise": "raw", "pool": "mean"},
    {"adaptor": "linear"},
    {"adaptor": "linear-all", "lr": 0.1},
    {"adaptor": "lst", "width": 4, "dropout": 0.1},
)
"""Trials that differ in all that a trial's own settings can be."""


def wide_store() -> MemoryStore:
    """A store whose planes are large enough to be multiplied together: 20 tokens, 48 channels."""
    store = separable_store()
    grid = TokenGrid(4, 4, prefix=4)
    spec = FeatureSpec("tiny", store.spec.taps, grid, 48, "float16")
    random = np.random.default_rng(3)
    members = {}
    for name, split in store.members.items():
        planes = np.tile(split.planes.astype("<f4"), (1, 1, 4, 8))
        planes = (planes + random.standard_normal(planes.shape)).astype("<f2")
        members[name] = replace(split, spec=spec, planes=planes)
    return replace(store, spec=spec, members=members)


def config_for(out: Path, **changes: Any) -> AdaptConfig:
    values = {"rank": 4, "epochs": 3, "batch_size": 16, "lr": 0.01, "warmup_epochs": 1.0}
    fixed = {"device": "cpu", "checkpoint_seconds": 1e9, "data_seed": 0}
    return AdaptConfig(out=out, **{**values, **fixed, **changes})


def trials_in(folder: Path, several: Several = UNLIKE) -> list[CohortTrial]:
    return [
        CohortTrial(config_for(folder / str(number), **changes))
        for number, changes in enumerate(several)
    ]


def alone(store: MemoryStore, folder: Path, several: Several = UNLIKE) -> None:
    for trial in trials_in(folder, several):
        adapt_on(store, trial.config)


def assert_same(ours: Path, theirs: Path) -> None:
    assert (ours / "metrics.jsonl").read_bytes() == (theirs / "metrics.jsonl").read_bytes()
    for name in ("best.safetensors", "last.safetensors"):
        left, right = (
            safetensors.torch.load((path / name).read_bytes()) for path in (ours, theirs)
        )
        assert left.keys() == right.keys()
        assert [key for key in left if not torch.equal(left[key], right[key])] == []
    reports = [json.loads((path / "report.json").read_text()) for path in (ours, theirs)]
    assert reports[0]["metrics"] == reports[1]["metrics"]
    assert reports[0]["timing"]["epochs"] == reports[1]["timing"]["epochs"]


def stop_at(phase: str, epoch: int, step: int) -> Callable[[ProgressEvent], None]:
    def progress(event: ProgressEvent) -> None:
        if (event.phase, event.epoch, event.step) == (phase, epoch, step):
            raise CrashError

    return progress


class CrashError(Exception):
    """A death that training gets no chance to answer."""


def test_every_trial_ends_with_the_bits_it_has_alone(tmp_path: Path) -> None:
    store = wide_store()
    alone(store, tmp_path / "alone")
    before = len(store.split("train").reads)
    found = adapt_cohort(store, trials_in(tmp_path / "together"))
    # One read of a batch for all: each of the longest trial's, a call for each tap.
    assert len(store.split("train").reads) - before == 3 * 6 * 2
    for number, outcome in enumerate(found):
        assert outcome.reason is None
        assert outcome.report is not None
        assert_same(tmp_path / f"together/{number}", tmp_path / f"alone/{number}")
        assert len(outcome.curve) == outcome.report.timing["epochs"]
        load_adaptor(tmp_path / f"together/{number}")


def test_early_stopping_leaves_the_cohort(tmp_path: Path) -> None:
    store = separable_store()
    several: Several = ({"epochs": 12, "patience": 1, "lr": 0.1}, {"epochs": 12})
    told: list[int] = []
    found = adapt_cohort(
        store, trials_in(tmp_path / "together", several), on_outcome=lambda i, _: told.append(i)
    )
    alone(store, tmp_path / "alone", several)
    assert len(found[0].curve) < 12 == len(found[1].curve)
    assert told == [0, 1]
    for number in range(2):
        assert_same(tmp_path / f"together/{number}", tmp_path / f"alone/{number}")


def test_a_trial_that_diverges_is_dropped_with_its_reason_and_harms_nobody(tmp_path: Path) -> None:
    store = separable_store()
    several: Several = ({}, {"lr": 1e38, "weight_decay": 1e38}, {"seed": 1})
    found = adapt_cohort(store, trials_in(tmp_path / "together", several))
    assert found[1].report is None
    assert found[1].reason is not None
    assert "not finite" in found[1].reason
    for number in (0, 2):
        adapt_on(store, config_for(tmp_path / f"alone/{number}", **several[number]))
        assert_same(tmp_path / f"together/{number}", tmp_path / f"alone/{number}")


def test_a_trial_whose_settings_do_not_fit_the_store_is_dropped(tmp_path: Path) -> None:
    store = separable_store()
    several: Several = ({"taps": "9"}, {}, {"adaptor": "nobody"})
    found = adapt_cohort(store, trials_in(tmp_path, several))
    assert [outcome.report is None for outcome in found] == [True, False, True]
    assert "--taps" in str(found[0].reason)
    assert "--adaptor" in str(found[2].reason)


@pytest.mark.parametrize(
    ("phase", "epoch", "step"),
    [
        ("train", 1, 4),
        ("val", 1, 1),
        *(
            pytest.param(*place, marks=pytest.mark.slow)
            for place in (("train", 0, 2), ("test", 1, 1), ("test", 2, 2))
        ),
    ],
)
def test_a_killed_cohort_resumes_every_trial_to_the_bit(
    tmp_path: Path, phase: str, epoch: int, step: int
) -> None:
    store = wide_store()
    # Saved at every step, at the end of epochs only, and over before the others.
    several: Several = ({"checkpoint_seconds": 0.0, "dropout": 0.2}, {"rank": 8}, {"epochs": 2})
    with pytest.raises(CrashError):
        adapt_cohort(
            store,
            trials_in(tmp_path / "together", several),
            progress=stop_at(phase, epoch, step),
        )
    adapt_cohort(store, trials_in(tmp_path / "together", several))
    alone(store, tmp_path / "alone", several)
    for number in range(3):
        assert_same(tmp_path / f"together/{number}", tmp_path / f"alone/{number}")


def test_a_cohort_takes_over_runs_that_were_begun_alone(tmp_path: Path) -> None:
    store = wide_store()
    several: Several = ({"seed": 1}, {}, {"seed": 2})
    with pytest.raises(CrashError):
        adapt_on(
            store,
            config_for(tmp_path / "together/0", seed=1),
            progress=stop_at("train", 2, 3),
        )
    adapt_on(store, config_for(tmp_path / "together/2", seed=2))
    seen: list[ProgressEvent] = []
    adapt_cohort(store, trials_in(tmp_path / "together", several), progress=seen.append)
    assert (seen[0].epoch, seen[0].step) == (0, 1)
    alone(store, tmp_path / "alone", several)
    for number in range(3):
        assert_same(tmp_path / f"together/{number}", tmp_path / f"alone/{number}")


def test_trials_that_were_stopped_at_an_epoch_go_on_from_there(tmp_path: Path) -> None:
    store = separable_store()
    several: Several = ({}, {"seed": 1})
    trials = [CohortTrial(trial.config, 1) for trial in trials_in(tmp_path / "together", several)]
    first = adapt_cohort(store, trials)
    assert [(o.report, o.reason, len(o.curve)) for o in first] == [(None, None, 1)] * 2
    seen: list[ProgressEvent] = []
    adapt_cohort(store, [CohortTrial(trials[1].config)], progress=seen.append)
    assert min(event.epoch for event in seen) == 1
    adapt_on(store, config_for(tmp_path / "alone", seed=1))
    assert_same(tmp_path / "together/1", tmp_path / "alone")


def test_a_finished_cohort_is_not_trained_again(tmp_path: Path) -> None:
    store = separable_store()
    first = adapt_cohort(store, trials_in(tmp_path, ({}, {"seed": 1})))
    seen: list[ProgressEvent] = []
    told: list[tuple[int, Outcome]] = []
    again = adapt_cohort(
        store,
        trials_in(tmp_path, ({}, {"seed": 1})),
        progress=seen.append,
        on_outcome=lambda *outcome: told.append(outcome),
    )
    assert not seen
    assert [o.report and o.report.to_json() for o in again] == [
        o.report and o.report.to_json() for o in first
    ]
    assert [number for number, _ in told] == [0, 1]


def test_trials_of_another_order_cannot_share_a_pass(tmp_path: Path) -> None:
    one, other = config_for(tmp_path / "a"), config_for(tmp_path / "b", batch_size=8)
    assert not can_share(one, other)
    with pytest.raises(UsageError, match="batch_size"):
        adapt_cohort(separable_store(), [CohortTrial(one), CohortTrial(other)])


def test_seeds_without_a_data_seed_do_not_share_and_with_one_do() -> None:
    assert not can_share(AdaptConfig(seed=0), AdaptConfig(seed=1))
    assert can_share(AdaptConfig(seed=0), AdaptConfig(seed=1, data_seed=0))


def test_seconds_of_a_cohort_are_shared_out_among_its_trials(tmp_path: Path) -> None:
    found = adapt_cohort(separable_store(), trials_in(tmp_path, ({}, {"seed": 1}, {"seed": 2})))
    seconds = [o.report.timing["seconds"] for o in found if o.report is not None]
    together = sum(seconds)
    assert len(seconds) == 3
    assert all(together / 6 < one < together / 2 for one in seconds)
