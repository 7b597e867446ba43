"""An estimate in words and tables, for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from losa.extract.amounts import in_bytes, in_time
from losa.extract.costing import FUSED_HEADS, READ_RATES, Bill, epoch_seconds
from losa.extract.estimate import Estimate, setting_of
from losa.extract.known import Setting

UNKNOWN: Final = "unknown, use --probe"
UNMEASURED: Final = "unknown: the images are not here, or a batch takes seconds"
COLUMNS: Final = (
    *("taps", "tokens", "dtype", "a sample", "all"),
    *(f"epoch at {rate / 1e9:g} GB/s" for rate in READ_RATES),
)

Rows = list[tuple[str, ...]]


def head_lines(found: Estimate) -> list[str]:
    """What is priced."""
    profile, counts = found.profile, found.counts
    splits = ", ".join(f"{name} {count:,}" for name, count in counts.samples.items())
    views = f", {counts.views} views of train" if counts.views > 1 else ""
    views += f", {counts.test_views} views of others" if counts.test_views > 1 else ""
    size = " x ".join(map(str, profile.img_size))
    each = "an image" if profile.frames is None else f"a clip of {profile.frames} frames"
    parameters, flops = profile.parameters / 1e6, found.asked.flops / 1e9
    return [
        f"{profile.name}, {size} px: {parameters:,.0f} M parameters, {flops:,.0f} GFLOP {each}",
        f"{found.config.dataset}: {splits}{views} ({counts.source})",
    ]


def policy_rows(found: Estimate) -> Rows:
    """The setting asked for, the usual ones, and those that fit, as rows under ``COLUMNS``."""
    asked = setting_of(found.config)
    rows = [_row(found, asked, found.asked, "asked: ")]
    rows += [_row(found, option.setting, option.bill) for option in found.table]
    return rows


def room_line(found: Estimate) -> str:
    """What the settings below it fit, or why they are named."""
    if found.room is None:
        return "keep less, those that keep most first:"
    return f"fit {in_bytes(found.room)}, those that keep most first:"


def better_rows(found: Estimate) -> Rows:
    """The settings that fit the room there is or keep less, as rows under ``COLUMNS``."""
    return [_row(found, option.setting, option.bill) for option in found.better]


def cost_rows(found: Estimate) -> list[tuple[str, str]]:
    """Bandwidth, time and break-even, each known or said to be unknown."""
    asked, rates = found.asked, found.rates
    if found.probe is None:
        what = "images" if found.profile.frames is None else "clips"
        per_thousand = f"{in_bytes(asked.sample_bytes * 1e3)}/s for every 1,000 {what}/s computed"
        return [
            ("disk must write, read", per_thousand),
            ("hours, break-even, predicted time", UNKNOWN),
        ]
    epochs = _times(asked.live_epoch_seconds, asked.cached_epoch_seconds)
    predicted = found.probe.predicted_seconds
    return [
        ("forward", _per_second(rates.forward, found)),
        ("decode", _per_second(rates.decode, found)),
        ("both at once", _per_second(rates.together, found)),
        ("disk writes, reads", _pair(rates.write, rates.read)),
        ("disk must write, read", _pair(asked.write_rate, asked.read_rate)),
        ("forward alone", _time(asked.forward_hours)),
        ("extraction, steady", _time(asked.extract_hours)),
        ("epoch live, from the store", epochs),
        ("taps that read as fast as live", _taps(found)),
        ("has paid after", _paid(asked)),
        ("from start to seal", UNMEASURED if predicted is None else in_time(predicted)),
    ]


def _row(found: Estimate, setting: Setting, priced: Bill, before: str = "") -> tuple[str, ...]:
    spec = found.profile.spec(setting)
    seconds: Iterable[float] = epoch_seconds(priced.sample_bytes, found.counts).values()
    return (
        f"{before}{setting.taps} ({len(spec.taps)})",
        f"{setting.tokens} ({spec.grid.num_tokens})",
        setting.dtype,
        in_bytes(priced.sample_bytes),
        in_bytes(priced.total_bytes),
        *(in_time(value) for value in seconds),
    )


def _per_second(rate: float | None, found: Estimate) -> str:
    what = "images" if found.profile.frames is None else "clips"
    return UNMEASURED if rate is None else f"{rate:,.1f} {what}/s"


def _pair(one: float | None, other: float | None) -> str:
    if one is None or other is None:
        return UNMEASURED
    return f"{in_bytes(one)}/s, {in_bytes(other)}/s"


def _time(hours: float | None) -> str:
    return UNMEASURED if hours is None else in_time(hours * 3600)


def _times(one: float | None, other: float | None) -> str:
    if one is None or other is None:
        return UNMEASURED
    return f"{in_time(one)}, {in_time(other)}"


def _taps(found: Estimate) -> str:
    taps, depth = found.asked.break_even_taps, found.profile.anatomy.depth
    if taps is None:
        return UNMEASURED
    return f"all {depth}" if taps >= depth else f"{taps} of {depth}"


def _paid(asked: Bill) -> str:
    if asked.never_pays:
        return "never: an epoch from the store lasts as long as a live one, or longer"
    if asked.pays_after is None:
        return UNMEASURED
    fused = asked.pays_after * FUSED_HEADS
    return (
        f"{asked.pays_after:.1f} epochs x trials of one head, "
        f"{fused:.1f} of {FUSED_HEADS} heads fused on one pass"
    )
