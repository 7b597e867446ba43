"""What a store costs and when it pays: arithmetic on a profile, counts and measured rates.

A rate that nobody has measured is ``None``, and so is all that follows from it: nothing here makes
a figure up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from losa.extract.known import Profile, Setting

FUSED_HEADS: Final = 8
"""Trials that train on one pass, in the second figure of when a store has paid."""

READ_RATES: Final = (7e9, 3e9, 0.5e9)
"""Bytes a second that an epoch is priced at: a fast NVMe disk, a usual one, a network."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Samples of every split, views of a train sample and of others, and who says so."""

    samples: Mapping[str, int]
    source: str
    views: int = 1
    test_views: int = 1

    @property
    def rows(self) -> int:
        """Rows of the store: one for each view of each sample.

        Example:
            >>> Counts({"train": 10, "val": 2}, "published", views=3, test_views=12).rows
            54
        """
        train = self.samples.get("train", 0)
        return train * self.views + (sum(self.samples.values()) - train) * self.test_views

    @property
    def epoch(self) -> int:
        """Rows that one epoch reads: one view of every train sample, else of the first split's."""
        return self.samples.get("train", next(iter(self.samples.values())))


@dataclass(frozen=True, slots=True)
class Rates:
    """What was measured here: images and bytes a second, and free bytes.

    ``together`` is decode and forward at once, as an extraction and live training run them.
    """

    forward: float | None = None
    decode: float | None = None
    together: float | None = None
    write: float | None = None
    read: float | None = None
    free_bytes: int | None = None

    @property
    def live(self) -> float | None:
        """Images a second through decode and forward, which overlap."""
        if self.together is not None or self.forward is None or self.decode is None:
            return self.together
        return min(self.forward, self.decode)


@dataclass(frozen=True, slots=True)
class Bill:
    """What one setting costs, in bytes, bandwidth and hours, and when it has paid.

    ``write_rate`` and ``read_rate`` are bytes a second: what the disk must take while features are
    computed, and what it must give so that a cached epoch lasts no longer than a live one.
    ``pays_after`` counts passes over the train split by one head, or by heads fused on one pass.
    """

    sample_bytes: int
    rows: int
    flops: int
    forward_hours: float | None
    extract_hours: float | None
    write_rate: float | None
    read_rate: float | None
    live_epoch_seconds: float | None
    cached_epoch_seconds: float | None
    pays_after: float | None
    break_even_taps: int | None

    @property
    def total_bytes(self) -> int:
        """Bytes of all rows at all taps."""
        return self.rows * self.sample_bytes

    @property
    def never_pays(self) -> bool:
        """Whether a cached epoch is known to last longer than a live one."""
        live, cached = self.live_epoch_seconds, self.cached_epoch_seconds
        return live is not None and cached is not None and cached >= live

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; what is not known is null."""
        fused = None if self.pays_after is None else self.pays_after * FUSED_HEADS
        return {
            **asdict(self),
            "bytes": self.total_bytes,
            "never_pays": self.never_pays,
            "pays_after": {
                "one_head_epochs": self.pays_after,
                "fused_heads": FUSED_HEADS,
                "fused_epochs_times_trials": fused,
            },
        }


def bill(profile: Profile, setting: Setting, counts: Counts, rates: Rates) -> Bill:
    """Price a setting.

    An extraction overlaps computing and writing, and an epoch over the store its reading and
    training, so each lasts as long as its slower part; training the heads, which a live epoch does
    as well, is left out of both.

    Raises:
        UsageError: the setting does not fit the backbone.

    Example:
        >>> from losa.extract.profiles import profile_of
        >>> counts = Counts({"train": 437_513, "val": 24_426}, "published")
        >>> every = bill(profile_of("vit_g"), Setting("all", "all", "float16"), counts, Rates())
        >>> round(every.total_bytes / 1e12, 1), every.extract_hours
        (13.4, None)
    """
    spec = profile.spec(setting)
    live_epoch = _quotient(counts.epoch, rates.live)
    cached_epoch = _quotient(counts.epoch * spec.sample_bytes, rates.read)
    computing = _quotient(counts.rows, rates.live)
    writing = _quotient(counts.rows * spec.sample_bytes, rates.write)
    extracting = None if computing is None or writing is None else max(computing, writing)
    return Bill(
        sample_bytes=spec.sample_bytes,
        rows=counts.rows,
        flops=profile.flops(spec.taps[-1] + 1),
        forward_hours=_scaled(_quotient(counts.rows, rates.forward), 1 / 3600),
        extract_hours=_scaled(extracting, 1 / 3600),
        write_rate=_scaled(rates.live, spec.sample_bytes),
        read_rate=_scaled(rates.live, spec.sample_bytes),
        live_epoch_seconds=live_epoch,
        cached_epoch_seconds=cached_epoch,
        pays_after=passes_to_pay(extracting, live_epoch, cached_epoch),
        break_even_taps=break_even_taps(rates, spec.sample_bytes // len(spec.taps)),
    )


def passes_to_pay(
    extracting: float | None, live_epoch: float | None, cached_epoch: float | None
) -> float | None:
    """Epochs after which extracting once and reading ever after has cost less than live epochs.

    None where a time is not known, and where reading is no faster than computing, so never.
    Heads fused on one pass share its cost whether it reads or computes: then these are epochs of
    all of them together.

    Example:
        >>> passes_to_pay(600.0, 110.0, 10.0), passes_to_pay(600.0, 10.0, 10.0)
        (6.0, None)
    """
    if extracting is None or live_epoch is None or cached_epoch is None:
        return None
    return extracting / (live_epoch - cached_epoch) if live_epoch > cached_epoch else None


def break_even_taps(rates: Rates, tap_bytes: int) -> int | None:
    """The most taps that are read as fast as the backbone computes them; none is 0.

    Example:
        >>> break_even_taps(Rates(together=100.0, read=1e9), 700_000)
        14
    """
    if rates.live is None or rates.read is None:
        return None
    return int(rates.read / (rates.live * tap_bytes))


def epoch_seconds(sample_bytes: int, counts: Counts) -> dict[str, float]:
    """Seconds of reading the train split once at each of :data:`READ_RATES`, named in GB/s."""
    return {f"{rate / 1e9:g}": counts.epoch * sample_bytes / rate for rate in READ_RATES}


def _quotient(amount: int | float, rate: float | None) -> float | None:
    return None if rate is None else amount / rate


def _scaled(value: float | None, factor: int | float) -> float | None:
    return None if value is None else value * factor
