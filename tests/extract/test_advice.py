"""Claims of losa.extract.advice: what fits, what loses least, and when not to cache."""

from __future__ import annotations

import pytest

from losa.errors import UsageError
from losa.extract.advice import MARGIN, fitting, parse_bytes, policies, smaller, suits, verdict
from losa.extract.costing import Counts, Rates, bill
from losa.extract.known import Setting
from losa.extract.profiles import profile_of

GIANT = profile_of("vit_g")
INAT = Counts({"train": 437_513, "val": 24_426}, "published")
ALL = Setting("all", "all", "float16")
HALF_TB = 500 * 10**9


@pytest.mark.parametrize(
    ("text", "count"),
    [("500GB", 5 * 10**11), ("1.5 TB", 15 * 10**11), ("2GiB", 2**31), ("700", 700), ("3m", 3e6)],
)
def test_a_size_is_read(text: str, count: float) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "much", "0GB", "-5GB", "5XB", "1e9", "5iB", "9" * 99])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--budget"):
        parse_bytes(text)


def test_what_is_advised_fits_keeps_less_and_comes_largest_first() -> None:
    found = fitting(GIANT, ALL, INAT, Rates(), HALF_TB)
    sizes = [option.bill.total_bytes for option in found]
    assert sizes == sorted(sizes, reverse=True)
    assert 0.25 * HALF_TB < sizes[0] * MARGIN <= HALF_TB
    assert all(option.share == option.bill.sample_bytes / 28_948_480 for option in found)
    specs = [GIANT.spec(option.setting) for option in found]
    assert len({(spec.taps, spec.grid, spec.dtype) for spec in specs}) == len(specs)


def test_without_a_budget_each_smaller_store_is_advised_once() -> None:
    # Twelve blocks: several names of taps stand for the same ones.
    small = profile_of("vit_s")
    found = smaller(small, ALL, INAT, Rates())
    specs = [small.spec(option.setting) for option in found]
    assert len(found) > 1
    assert len({(spec.taps, spec.grid, spec.dtype) for spec in specs}) == len(specs)
    assert all(0 < option.share < 1 for option in found)


def test_nothing_that_was_given_up_comes_back() -> None:
    asked = Setting("last:3", "pool:4x4", "int8")
    most = GIANT.spec(asked)
    for option in fitting(GIANT, asked, INAT, Rates(), 10**11):
        spec = GIANT.spec(option.setting)
        assert len(spec.taps) <= 3
        assert spec.grid.num_tokens <= most.grid.num_tokens
        assert spec.dtype == "int8"


def test_what_reads_too_slowly_is_not_advised() -> None:
    rates = Rates(together=750.0, read=0.5e9, write=1e9)
    found = fitting(GIANT, ALL, INAT, rates, 10**14)
    assert found
    assert all(option.bill.sample_bytes * 750 < 0.5e9 for option in found)


def test_the_usual_policies_name_taps_that_every_backbone_has() -> None:
    for alias in ("vit_s", "vit_l", "dinov2_g"):
        profile = profile_of(alias)
        assert all(profile.spec(setting).taps for setting in policies(profile))


@pytest.mark.parametrize(
    ("rates", "room", "words"),
    [
        (Rates(), None, "unknown without measured rates: use --probe"),
        (Rates(), HALF_TB, "this does not fit; the settings above do"),
        (Rates(), 10**6, "do not cache: not even the smallest setting fits"),
        (Rates(together=750.0, read=7e9, write=3e9), 10**14, "the settings above read faster"),
        (Rates(together=1e6, read=1e6, write=3e9), 10**14, "no smaller setting that fits helps"),
        (Rates(together=10.0, read=7e9, write=3e9), 10**14, "it fits; cache it: it has paid after"),
    ],
)
def test_the_verdict_is_honest(rates: Rates, room: int | None, words: str) -> None:
    asked = bill(GIANT, ALL, INAT, rates)
    better = [] if room is None else fitting(GIANT, ALL, INAT, rates, room)
    assert words in verdict(asked, better, room)


def test_a_setting_suits_that_fits_and_is_not_known_to_read_too_slowly() -> None:
    asked = bill(GIANT, ALL, INAT, Rates())
    assert suits(asked, None)
    assert suits(asked, 14 * 10**12)
    assert not suits(asked, 13 * 10**12)
