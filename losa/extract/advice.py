"""Which settings to prefer: the table that everybody should see, and what fits a budget."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from losa.errors import UsageError
from losa.extract.costing import Bill, Counts, Rates, bill, epoch_seconds
from losa.extract.known import Profile, Setting
from losa.features import ITEM_BYTES, FeatureSpec, StoreDtype

MARGIN: Final = 1.02
"""A budget holds this much more than the features: indexes, tables and commit records."""

MOST_ADVICE: Final = 6
LARGE: Final = 10**12
"""Bytes beyond which smaller settings are named though nobody said how much room there is."""
_FEW_TAPS: Final = 4
_UNITS: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
_SIZE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([kmgtp]?)(i?)b?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Option:
    """A setting with its bill, and its bytes as a share of what was asked for."""

    setting: Setting
    bill: Bill
    share: float

    def to_json(self, counts: Counts) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "taps": self.setting.taps,
            "tokens": self.setting.tokens,
            "store_dtype": self.setting.dtype,
            "sample_bytes": self.bill.sample_bytes,
            "bytes": self.bill.total_bytes,
            "share": round(self.share, 6),
            "epoch_seconds": epoch_seconds(self.bill.sample_bytes, counts),
        }


def parse_bytes(text: str) -> int:
    """Bytes that a text such as ``500GB`` or ``1.5TiB`` means.

    Raises:
        UsageError: it means none.

    Example:
        >>> parse_bytes("500GB"), parse_bytes("1.5 TiB")
        (500000000000, 1649267441664)
    """
    found = _SIZE.fullmatch(text.strip())
    number = float(found[1]) if found else 0.0
    if not found or number <= 0 or (found[3] and not found[2]):
        raise UsageError("--budget", f"{text[:60]!r} is no size", "write it like 500GB or 1.5TB")
    unit = found[2].lower()
    scale = 1024 ** list(_UNITS).index(unit) if found[3] else _UNITS[unit]
    return int(number * scale)


def policies(profile: Profile) -> list[Setting]:
    """The settings worth comparing for any backbone, from everything to very little."""
    few = f"every:{max(1, profile.anatomy.depth // _FEW_TAPS)}"
    listed: list[tuple[str, str, StoreDtype]] = [
        ("all", "all", "float16"),
        ("all", "all", "int8"),
        ("auto", "all", "float16"),
        ("auto", "all", "int8"),
        ("auto", "pool:2x2", "float16"),
        ("auto", "pool:2x2", "int8"),
        (few, "pool:2x2", "int8"),
        ("auto", "pool:4x4", "float16"),
        ("all", "summary", "float16"),
        ("last", "all", "float16"),
    ]
    if profile.grid.time > 1:
        listed += [("auto", "pool:2x4x4", "int8"), (few, "pool:2x4x4", "int8")]
    return [Setting(*one) for one in listed]


def fitting(
    profile: Profile, asked: Setting, counts: Counts, rates: Rates, room: int
) -> list[Option]:
    """Settings below the one asked for that fit ``room`` bytes, those that lose least first.

    None keeps more of anything than was asked for, and of two that keep as many bytes the one with
    more tokens comes first. What reads slower than the backbone computes is left out where that is
    known.
    """
    whole = bill(profile, asked, counts, rates)
    kept: dict[object, Option] = {}
    for setting in _below(profile, asked):
        spec, priced = profile.spec(setting), bill(profile, setting, counts, rates)
        fits = priced.total_bytes * MARGIN <= room and priced.sample_bytes < whole.sample_bytes
        if fits and not priced.never_pays:
            share = priced.sample_bytes / whole.sample_bytes
            kept.setdefault((spec.taps, spec.grid, spec.dtype), Option(setting, priced, share))
    found = list(kept.values())
    found.sort(key=lambda option: (-option.share, -profile.spec(option.setting).grid.num_tokens))
    return found[:MOST_ADVICE]


def smaller(profile: Profile, asked: Setting, counts: Counts, rates: Rates) -> list[Option]:
    """The usual settings that keep less than the one asked for, those that keep most first.

    For where no budget is known. None keeps more taps, tokens or bytes a value.
    """
    whole, most = bill(profile, asked, counts, rates), profile.spec(asked)
    kept: dict[object, Option] = {}
    for setting in policies(profile):
        spec, priced = profile.spec(setting), bill(profile, setting, counts, rates)
        is_smaller = priced.sample_bytes < whole.sample_bytes
        if is_smaller and not priced.never_pays and _is_within(spec, most):
            share = priced.sample_bytes / whole.sample_bytes
            kept.setdefault((spec.taps, spec.grid, spec.dtype), Option(setting, priced, share))
    found = list(kept.values())
    found.sort(key=lambda option: -option.share)
    return found[:MOST_ADVICE]


def suits(asked: Bill, room: int | None) -> bool:
    """Whether a setting fits, as far as is known, and reads faster than it is computed."""
    return not asked.never_pays and (room is None or asked.total_bytes * MARGIN <= room)


def verdict(asked: Bill, better: Sequence[Option], room: int | None) -> str:
    """The advice in one sentence.

    Example:
        >>> from losa.extract.known import Setting
        >>> from losa.extract.profiles import profile_of
        >>> counts, small = Counts({"train": 437_513}, "published"), Setting("last", "all", "int8")
        >>> verdict(bill(profile_of("vit_g"), small, counts, Rates()), [], 10**12)
        'it fits; whether it pays is unknown without measured rates: use --probe'
    """
    if asked.never_pays:
        slow = "reading these features takes longer than computing them again"
        if better:
            return f"do not cache this setting: {slow}; the settings above read faster"
        return f"do not cache: {slow}, and no smaller setting that fits helps; train live"
    if not suits(asked, room):
        if better:
            return "this does not fit; the settings above do"
        return "do not cache: not even the smallest setting fits and pays; train live"
    fits = "" if room is None else "it fits; "
    if asked.pays_after is None:
        todo = "use --probe" if room is not None else "use --probe, or --budget for what fits"
        if better:
            todo += "; the settings above keep less"
        return f"{fits}whether it pays is unknown without measured rates: {todo}"
    return f"{fits}cache it: it has paid after {asked.pays_after:.1f} epochs x trials"


def _below(profile: Profile, asked: Setting) -> Iterator[Setting]:
    """Every setting that keeps no more taps, tokens and bytes a value than the one asked for."""
    depth = profile.anatomy.depth
    steps = dict.fromkeys([1, 2, 3, 4, 6, depth // 4, depth // 2])
    taps = dict.fromkeys([asked.taps, *(f"every:{step}" for step in steps if step), "last"])
    coarse = ("pool:2x2x2", "pool:2x4x4") if profile.grid.time > 1 else ()
    tokens = dict.fromkeys([asked.tokens, "all", "pool:2x2", "pool:4x4", *coarse, "summary"])
    dtypes = dict.fromkeys([asked.dtype, "int8"])
    most = profile.spec(asked)
    for setting in (Setting(a, b, c) for a in taps for b in tokens for c in dtypes):
        if _is_within(profile.spec(setting), most):
            yield setting


def _is_within(spec: FeatureSpec, most: FeatureSpec) -> bool:
    """Whether a setting keeps no more taps, tokens or bytes a value than another."""
    fewer = len(spec.taps) <= len(most.taps)
    coarser = spec.grid.num_tokens <= most.grid.num_tokens
    return fewer and coarser and ITEM_BYTES[spec.dtype] <= ITEM_BYTES[most.dtype]
