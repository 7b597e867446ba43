"""Trials are checked against the store, named by what they are, and never twice there."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from losa.adapt.rundir import config_digest, effective
from losa.config import AdaptConfig
from losa.errors import InputError, UsageError
from losa.sweep.strategy import parse_strategy
from losa.sweep.trials import MANY, TrialMaker, base_config, check_count
from tests.adapt.memory_store import MemoryStore

FILE = Path("s.yaml")


def maker(store: MemoryStore, **base: Any) -> TrialMaker:
    config = AdaptConfig(store=Path("s.zarr"), device="cpu", amp_dtype="none", data_seed=0, **base)
    return TrialMaker(store, config, Path("trials"))


def test_a_trial_is_named_by_the_digest_of_its_run(store: MemoryStore) -> None:
    (trial,) = maker(store).all_of([{"rank": 3}], FILE)
    base = AdaptConfig(rank=3, amp_dtype="none", data_seed=0)
    acting = effective(base, (1, 3))
    assert (acting.taps, acting.pool, acting.standardise) == ("1,3", "mean", "tap")
    assert config_digest(acting, store.store_id).startswith(trial.digest)
    assert trial.config.out == Path("trials") / trial.digest


def test_equal_trials_are_one(store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    settings: list[dict[str, Any]] = [
        {"rank": 32},
        {},
        {"adaptor": "linear", "rank": 2},
        {"adaptor": "linear"},
        {"lr": 1},
    ]
    with caplog.at_level(logging.INFO, logger="losa"):
        found = maker(store).all_of([*settings, {"taps": "1,3"}], FILE)
    assert [trial.setting for trial in found] == [settings[0], settings[2], settings[4]]
    assert [trial.number for trial in found] == [0, 1, 2]
    assert "3 settings are equal to others" in caplog.text


def test_what_the_store_cannot_give_is_told_at_once(store: MemoryStore) -> None:
    settings: list[dict[str, Any]] = [
        {"taps": "9"},
        {"adaptor": "lora"},
        {"adaptor": "lora"},
        {"val_fraction": 0.0},
    ]
    with pytest.raises(InputError) as caught:
        maker(store).all_of(settings, FILE)
    text = str(caught.value)
    assert text.count("lora' is unknown") == 1
    assert "taps" in text
    assert "val_fraction: 0 leaves no val" in text


def test_the_base_has_one_data_seed_and_this_machines_autocast() -> None:
    strategy = parse_strategy({"list": [{}], "base": {"device": "cpu", "rank": 3}}, FILE)
    found = base_config(strategy, Path("s.zarr"))
    assert (found.data_seed, found.amp_dtype, found.rank) == (0, "none", 3)
    assert found.store == Path("s.zarr")


def test_very_many_trials_have_to_be_meant() -> None:
    axis = list(range(1, MANY + 1))
    few = parse_strategy({"grid": {"rank": axis}}, FILE)
    many = parse_strategy({"grid": {"rank": axis}, "list": [{}]}, FILE)
    far_too_many = parse_strategy({"grid": {"rank": axis, "seed": axis}}, FILE)
    check_count(few, FILE)
    check_count(many, FILE, is_meant=True)
    with pytest.raises(UsageError, match=r"10,001 trials; give --yes"):
        check_count(many, FILE)
    with pytest.raises(InputError, match="at most 1,000,000"):
        check_count(far_too_many, FILE, is_meant=True)
