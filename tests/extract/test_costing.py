"""Claims of losa.extract.costing: bytes, bandwidth and break-even by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from losa.extract.costing import (
    FUSED_HEADS,
    Bill,
    Counts,
    Rates,
    bill,
    break_even_taps,
    epoch_seconds,
    passes_to_pay,
)
from losa.extract.known import Anatomy, Profile, Setting

SMALL = Profile("small", Anatomy(4, 8, 1, (16, 16)), 32, 1000, (32, 32))
ALL = Setting("all", "all", "float16")
SAMPLE = 4 * 5 * 8 * 2
COUNTS = Counts({"train": 1000, "val": 200}, "here")
FAST = Rates(forward=50.0, decode=200.0, together=40.0, write=1e6, read=400_000.0)


def test_without_rates_bytes_are_known_and_times_are_not() -> None:
    found = bill(SMALL, ALL, COUNTS, Rates())
    assert (found.sample_bytes, found.rows, found.total_bytes) == (SAMPLE, 1200, 1200 * SAMPLE)
    times = (found.forward_hours, found.extract_hours, found.pays_after, found.break_even_taps)
    assert times == (None,) * 4
    assert found.to_json()["pays_after"]["one_head_epochs"] is None
    assert not found.never_pays


def test_times_and_bandwidth_follow_from_the_rates() -> None:
    found = bill(SMALL, ALL, COUNTS, FAST)
    assert found.forward_hours == pytest.approx(1200 / 50 / 3600)
    assert found.extract_hours == pytest.approx(1200 / 40 / 3600)
    assert found.read_rate == pytest.approx(40 * SAMPLE)
    assert found.live_epoch_seconds == pytest.approx(25.0)
    assert found.cached_epoch_seconds == pytest.approx(1000 * SAMPLE / 400_000)


def test_the_slower_of_computing_and_writing_decides() -> None:
    slow = bill(SMALL, ALL, COUNTS, replace(FAST, write=1200.0))
    assert slow.extract_hours == pytest.approx(SAMPLE / 3600)


def test_only_train_samples_have_views_and_an_epoch_reads_one_of_them() -> None:
    viewed = Counts({"train": 1000, "val": 200}, "here", views=4)
    assert (viewed.rows, viewed.epoch) == (4200, 1000)
    assert Counts({"test": 7, "val": 2}, "here").epoch == 7


def test_a_store_has_paid_when_its_total_time_is_less_than_the_live_one() -> None:
    found = bill(SMALL, ALL, COUNTS, FAST)
    assert found.pays_after is not None
    assert found.extract_hours is not None
    assert found.live_epoch_seconds is not None
    assert found.cached_epoch_seconds is not None
    build = found.extract_hours * 3600

    def cached(epochs: float) -> float:
        return build + epochs * (found.cached_epoch_seconds or 0)

    def live(epochs: float) -> float:
        return epochs * (found.live_epoch_seconds or 0)

    assert cached(found.pays_after + 0.1) < live(found.pays_after + 0.1)
    assert cached(found.pays_after - 0.1) > live(found.pays_after - 0.1)
    told = found.to_json()["pays_after"]
    assert told["fused_epochs_times_trials"] == pytest.approx(FUSED_HEADS * found.pays_after)


def test_what_reads_slower_than_it_is_computed_never_pays() -> None:
    found = bill(SMALL, ALL, COUNTS, replace(FAST, read=1000.0))
    assert (found.never_pays, found.pays_after) == (True, None)
    assert passes_to_pay(1.0, 2.0, 2.0) is None


def test_one_tap_more_than_break_even_reads_slower_than_live() -> None:
    tap = SAMPLE // 4
    rates = replace(FAST, read=40 * tap * 2.5)
    assert break_even_taps(rates, tap) == 2
    assert break_even_taps(Rates(), tap) is None

    def never_pays(taps: str) -> bool:
        found: Bill = bill(SMALL, Setting(taps, "all", "float16"), COUNTS, rates)
        return found.never_pays

    assert (never_pays("last:2"), never_pays("last:3")) == (False, True)


def test_live_training_is_bound_by_the_slower_of_decode_and_forward() -> None:
    assert Rates(forward=50.0, decode=20.0).live == 20.0
    assert Rates(forward=50.0).live is None
    assert FAST.live == 40.0


def test_flops_end_with_the_last_tap() -> None:
    assert bill(SMALL, Setting("1", "all", "int8"), COUNTS, Rates()).flops == SMALL.flops(2)


def test_an_epoch_is_priced_at_usual_rates() -> None:
    assert epoch_seconds(7_000_000, COUNTS) == {"7": 1.0, "3": pytest.approx(7 / 3), "0.5": 14.0}
