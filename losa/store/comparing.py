"""Comparing two stores: record by record, and in true units where their dtypes differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from jaxtyping import Bool, Float16, Float64, Int64, Shaped

from losa.features import FeatureSpec
from losa.store import layout
from losa.store.plan import differing_fields
from losa.store.reader import Store, open_store
from losa.store.sealed import OK_STATUS
from losa.store.split import SplitReader

Progress = Callable[[int, int], None]
Raw: TypeAlias = tuple[Shaped[np.ndarray, "b l d"], Float16[np.ndarray, "b l"] | None]
BLOCK_BYTES: Final = 16 * 2**20
"""Bytes of one store's features, as float64, that are in memory at once."""


@dataclass(frozen=True, slots=True)
class TapDifference:
    """How far one tap of one split is the same in two stores, over the rows both have."""

    split: str
    tap: int
    rows: int
    identical: int
    max_abs: float
    relative_l2: float
    least_cosine: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two stores have in common.

    ``identical``: every record is bitwise the same, and so are the plans. ``within``: no tap's
    relative L2 distance is above the tolerance, and the same rows hold features.
    """

    identical: bool
    within: bool
    plan: tuple[str, ...]
    taps: tuple[TapDifference, ...]
    not_compared: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "identical": self.identical,
            "within": self.within,
            "plan": list(self.plan),
            "taps": [asdict(row) for row in self.taps],
            "not_compared": list(self.not_compared),
        }


def compare_stores(
    a: Path, b: Path, *, rtol: float = 0.0, progress: Progress | None = None
) -> Comparison:
    """Compare the taps and splits that two sealed stores both have, rows matched by source index.

    ``progress`` is told bytes of ``a`` compared and bytes in all.

    Raises:
        StoreError: one of them cannot be opened, or is damaged; the file is named.
    """
    left, right = open_store(a), open_store(b)
    splits = [name for name in left.splits if _is_common(left, right, name)]
    taps = [tap for tap in left.spec.taps if tap in right.spec.taps]
    plan = (
        *differing_fields(left.plan.to_json(), right.plan.to_json()),
        *_differing_statistics(left, right, taps),
    )
    pairs = [_Pair(left, right, name) for name in splits]
    told = _Told(progress, left.spec, sum(len(pair.rows) for pair in pairs) * len(taps))
    found = tuple(_compare_tap(pair, tap, told) for pair in pairs for tap in taps)
    others = [name for name in {**left.plan.splits, **right.plan.splits} if name not in splits]
    unequal = [pair.name for pair in pairs if not pair.same_status]
    is_within = bool(found) and not unequal and all(row.relative_l2 <= rtol for row in found)
    is_same = is_within and not plan and not others
    return Comparison(
        identical=is_same and all(row.identical == row.rows for row in found),
        within=is_within,
        plan=plan,
        taps=found,
        not_compared=(
            *(f"{name}: is not in both, or its samples or tokens differ" for name in others),
            *(f"{name}: other rows were skipped" for name in unequal),
        ),
    )


def _differing_statistics(left: Store, right: Store, taps: Sequence[int]) -> Iterator[str]:
    """Statistics of calibration that differ: training standardises by them."""
    for tap in taps:
        ours, theirs = (asdict(store.calibration((tap,))) for store in (left, right))
        for name in ("mean", "std", "absmax", "channel"):
            if not np.array_equal(ours[name], theirs[name]):
                yield f"calib/{layout.tap_name(tap)}/{name}: differs"


def _is_common(left: Store, right: Store, name: str) -> bool:
    item, other = left.plan.splits[name], right.plan.splits.get(name)
    same_shape = left.spec.shape[1:] == right.spec.shape[1:]
    return other is not None and item == other and same_shape


class _Pair:
    """One split of two stores: rows of the one that hold features in both, and the other's."""

    def __init__(self, left: Store, right: Store, name: str) -> None:
        self.name = name
        self.left, self.right = left, right
        ours, theirs = left.split(name), right.split(name)
        # Both have the same rows, in whatever order: every view of every sample, once.
        matched = np.empty_like(ours.source_index)
        matched[np.lexsort(_row_keys(ours))] = np.lexsort(_row_keys(theirs))
        status = theirs.status[matched]
        self.same_status = bool((ours.status == status).all())
        self.rows = np.flatnonzero((ours.status == OK_STATUS) & (status == OK_STATUS))
        self.matched = matched[self.rows]


def _row_keys(reader: SplitReader) -> tuple[np.ndarray, np.ndarray]:
    """What tells one row of a split from another."""
    return reader.views, reader.source_index


@dataclass(slots=True)
class _Told:
    """Progress, told in bytes of the left store."""

    progress: Progress | None
    spec: FeatureSpec
    total: int
    done: int = 0

    def add(self, rows: int) -> None:
        self.done += rows
        if self.progress:
            size = self.spec.record_bytes + self.spec.scale_bytes
            self.progress(self.done * size, self.total * size)


@dataclass(slots=True)
class _Sums:
    """What is summed up over the rows of a tap."""

    identical: int = 0
    max_abs: float = 0.0
    norms: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    least_cosine: float = 1.0

    def add(self, a: Float64[np.ndarray, "b l d"], b: Float64[np.ndarray, "b l d"]) -> None:
        """Add the features of some rows."""
        difference = a - b
        self.max_abs = max(self.max_abs, float(np.abs(difference).max()))
        for number, values in enumerate((difference, a, b)):
            self.norms[number] += float(np.square(values).sum())
        self.least_cosine = min(self.least_cosine, float(_cosines(a, b).min()))

    def relative_l2(self) -> float:
        """Norm of the difference in parts of the left one's, or the right one's if that is 0."""
        difference, left, right = self.norms
        return math.sqrt(difference / (left or right)) if difference else 0.0


def _compare_tap(pair: _Pair, tap: int, told: _Told) -> TapDifference:
    _, tokens, channels = pair.left.spec.shape
    block = max(1, BLOCK_BYTES // (tokens * channels * 8))
    sums = _Sums()
    decode_left, decode_right = _decoder(pair.left, tap), _decoder(pair.right, tap)
    for first in range(0, len(pair.rows), block):
        ours = _read(pair.left.split(pair.name), tap, pair.rows[first : first + block])
        theirs = _read(pair.right.split(pair.name), tap, pair.matched[first : first + block])
        a, b = decode_left(*ours), decode_right(*theirs)
        is_same = _same_bits(ours, theirs) & (a == b).all(axis=(1, 2))
        sums.identical += int(is_same.sum())
        sums.add(a, b)
        told.add(len(a))
    return TapDifference(
        pair.name,
        tap,
        len(pair.rows),
        sums.identical,
        sums.max_abs,
        sums.relative_l2(),
        sums.least_cosine,
    )


def _read(split: SplitReader, tap: int, rows: Int64[np.ndarray, "b"]) -> Raw:
    _, tokens, channels = split.spec.shape
    planes = np.empty((1, len(rows), tokens, channels), split.raw_dtype)
    if not split.spec.scale_bytes:
        split.read_into(rows, (tap,), planes)
        return planes[0], None
    scales = np.empty((1, len(rows), tokens), layout.SCALE_DTYPE)
    split.read_into(rows, (tap,), planes, scales)
    return planes[0], scales[0]


def _decoder(store: Store, tap: int) -> Callable[..., Float64[np.ndarray, "b l d"]]:
    """How what one tap's records hold becomes features, in true units."""
    calibration = store.calibration((tap,))
    exponent, dtype = calibration.exponent[0], store.spec.dtype

    def decode(
        plane: Shaped[np.ndarray, "b l d"], scale: Float16[np.ndarray, "b l"] | None
    ) -> Float64[np.ndarray, "b l d"]:
        if dtype == "bfloat16":
            plane = (plane.astype(np.uint32) << 16).view(np.float32)
        values: Float64[np.ndarray, "b l d"] = np.ldexp(plane.astype(np.float64), exponent)
        if scale is None:
            return values
        assert calibration.channel is not None
        values *= scale[..., None]
        values *= calibration.channel[0]
        values += calibration.mean[0]
        return values

    return decode


def _same_bits(ours: Raw, theirs: Raw) -> Bool[np.ndarray, "b"]:
    """Rows whose stored bytes are equal; where dtypes differ, the features are asked alone."""
    same = np.ones(len(ours[0]), dtype=np.bool_)
    if ours[0].dtype == theirs[0].dtype:
        for a, b in zip(ours, theirs, strict=True):
            if a is not None and b is not None:
                bits = a.view(np.uint8) == b.view(np.uint8)
                same &= bits.reshape(len(a), -1).all(axis=1)
    return same


def _cosines(
    a: Float64[np.ndarray, "b l d"], b: Float64[np.ndarray, "b l d"]
) -> Float64[np.ndarray, "b l"]:
    """Cosine of each token with the other store's; two tokens of zeros point the same way."""
    norms = np.linalg.norm(a, axis=2) * np.linalg.norm(b, axis=2)
    is_zero = norms == 0
    both_zero = ~(a.any(axis=2) | b.any(axis=2))
    cosines = (a * b).sum(axis=2) / np.where(is_zero, 1.0, norms)
    return np.where(is_zero, both_zero.astype(np.float64), cosines)
