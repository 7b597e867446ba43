"""A store in memory with the interface of ``losa.store``: planes that a linear probe can tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float16, Float32, Int32, Int64, Shaped, UInt8

from losa.features import FeatureSpec, Sample, StoreDtype, TokenGrid
from losa.store import Calibration, Plan
from losa.store.listing import listing_digest
from losa.store.order import EpochOrder
from losa.store.plan import Numerics, SplitPlan

RAW: Mapping[str, str] = {"float16": "<f2", "float32": "<f4", "bfloat16": "<u2", "int8": "<i1"}
CHANNEL = np.array([[0.5, 0.25, 1.0, 2.0, 1.0, 4.0], [1.0, 2.0, 0.5, 1.0, 0.25, 1.0]], "<f4")
"""Scales of the channels of every int8 store here: powers of two, to which all else is exact."""
MEAN = np.array([[0.5, 0.0, -1.0, 2.0, 0.0, 0.25], [1.0, 0.0, 0.0, -4.0, 0.5, 0.0]], "<f4")
"""What int8 takes away of every channel first, and calibration gives for the mean."""
QUANTISER = np.stack([MEAN, CHANNEL], axis=1)


@dataclass(eq=False)
class MemorySplit:
    """Rows held as one array of raw values, tap by tap; counts what is read of it."""

    spec: FeatureSpec
    planes: Shaped[np.ndarray, "k n l d"]
    labels: Int32[np.ndarray, "n"]
    status: UInt8[np.ndarray, "n"]
    samples: tuple[Sample, ...]
    source_index: Int64[np.ndarray, "n"]
    scales: Float16[np.ndarray, "k n l"] | None = None
    fail_at_row: int | None = None
    reads: list[tuple[int, ...]] = field(default_factory=list)
    followed: list[tuple[EpochOrder | None, tuple[int, ...], int]] = field(default_factory=list)
    views: UInt8[np.ndarray, "n"] = field(default_factory=lambda: np.zeros(0, np.uint8))

    def __post_init__(self) -> None:
        if not len(self.views):
            self.views = np.zeros(self.rows, np.uint8)

    @property
    def rows(self) -> int:
        return len(self.labels)

    @property
    def raw_dtype(self) -> np.dtype[np.generic]:
        return self.planes.dtype

    def read_into(
        self,
        rows: Int64[np.ndarray, "b"],
        taps: tuple[int, ...],
        out: Shaped[np.ndarray, "k b l d"],
        scales: Float16[np.ndarray, "k b l"] | None = None,
    ) -> None:
        assert out.dtype == self.planes.dtype
        assert (scales is None) == (self.scales is None)
        if self.fail_at_row is not None and self.fail_at_row in rows:
            raise OSError(f"row {self.fail_at_row} is gone")
        self.reads.append(taps)
        for i, tap in enumerate(taps):
            assert out[i].flags.c_contiguous
            out[i] = self.planes[self.spec.taps.index(tap)][rows]
            if scales is not None and self.scales is not None:
                scales[i] = self.scales[self.spec.taps.index(tap)][rows]

    def follow(self, order: EpochOrder | None, taps: tuple[int, ...], start: int) -> None:
        self.followed.append((order, taps, start))

    def features(self, exponents: tuple[int, ...]) -> Float32[np.ndarray, "k n l d"]:
        """All features in true units, as docs/store-format.md says."""
        raw = self.planes
        values = raw.astype("<f4")
        if self.spec.dtype == "bfloat16":
            values = (raw.astype("<u4") << 16).view("<f4")
        factors = np.exp2(np.array(exponents, "<f4"))[:, None, None, None]
        offset = np.zeros((1, 1, 1), "<f4")
        if self.scales is not None:
            factors = self.scales.astype("<f4")[..., None] * CHANNEL[:, None, None]
            offset = MEAN[:, None, None]
        features: Float32[np.ndarray, "k n l d"] = values * factors + offset
        return features


@dataclass(eq=False)
class MemoryStore:
    """Splits in memory behind the interface of an opened store."""

    spec: FeatureSpec
    members: dict[str, MemorySplit]
    classes: tuple[str, ...]
    exponents: tuple[int, ...]
    store_id: str = "5" * 64
    preprocessing: Mapping[str, int] = field(default_factory=lambda: {"img_size": 8})

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.members)

    @cached_property
    def plan(self) -> Plan:
        return Plan(
            spec=self.spec,
            backbone={"name": self.spec.backbone, "weights": "0" * 64, "tokens": "all"},
            preprocessing=dict(self.preprocessing),
            dataset="memory",
            classes=self.classes,
            splits={
                name: SplitPlan(len(split.samples), split.rows, listing_digest(split.samples))
                for name, split in self.members.items()
            },
            shard_rows=64,
            order_seed=0,
            calibration_rows=8,
            numerics=Numerics("cpu", None, 8),
            exponents=self.exponents,
            views=max([1, *(int(split.views.max()) + 1 for split in self.members.values())]),
        )

    def split(self, name: str) -> MemorySplit:
        return self.members[name]

    def calibration(self, taps: tuple[int, ...]) -> Calibration:
        split = self.members["train"]
        chosen = [self.spec.taps.index(tap) for tap in taps]
        exponents = tuple(self.exponents[i] for i in chosen)
        flat = split.features(self.exponents)[chosen].reshape(len(taps), -1, self.spec.channels)
        mean, std, absmax = flat.mean(1), flat.std(1), np.abs(flat).max(1)
        if self.spec.dtype == "int8":
            return Calibration(MEAN[chosen], std, absmax, exponents, CHANNEL[chosen])
        return Calibration(mean, std, absmax, exponents)


def separable_store(
    rows: Mapping[str, int] | None = None,
    *,
    dtype: StoreDtype = "float16",
    classes: int = 4,
    noise: float = 1.0,
    exponents: tuple[int, ...] = (0, 0),
    views: int = 1,
) -> MemoryStore:
    """A store whose class means lie in every token of every tap, under seeded noise.

    Samples of train have so many views: rows of other noise and, in other places, the same label.
    """
    spec = FeatureSpec("tiny", (1, 3), TokenGrid(2, 2, prefix=1), 6, dtype)
    random = np.random.default_rng(7)
    means = 2.0 * random.standard_normal((2, 1, classes, 1, 6))
    members = {}
    for name, count in (rows or {"train": 90, "val": 30, "test": 30}).items():
        places = random.permutation(count * (views if name == "train" else 1))
        source_index, view = places % count, (places // count).astype(np.uint8)
        labels = (np.arange(count) % classes).astype(np.int32)
        if view.any():
            labels = labels[source_index]
        planes = means[:, 0][:, labels] + noise * random.standard_normal((2, len(places), 5, 6))
        samples = [Sample("", "", 0)] * count
        for row, source in enumerate(source_index.tolist()):
            samples[source] = Sample(f"{name}/{source:03d}", f"{source}.png", int(labels[row]))
        raw, scales = raw_of(planes, dtype, exponents)
        readable = np.ones(len(places), dtype=np.uint8)
        members[name] = MemorySplit(
            spec, raw, labels, readable, tuple(samples), source_index, scales, views=view
        )
    return MemoryStore(spec, members, tuple(f"class{i}" for i in range(classes)), exponents)


def raw_of(
    planes: Float[np.ndarray, "k n l d"], dtype: StoreDtype, exponents: tuple[int, ...]
) -> tuple[Shaped[np.ndarray, "k n l d"], Float16[np.ndarray, "k n l"] | None]:
    """What a store would hold, and the scales of its tokens.

    bfloat16 is had by cutting off the lower half, and int8 by scales of the nearest float16: both
    are close enough.
    """
    if dtype == "int8":
        relative = (planes - MEAN[:, None, None]) / CHANNEL[:, None, None]
        scales = (np.abs(relative).max(-1) / 126).astype("<f2")
        return np.rint(relative / scales[..., None]).astype("<i1"), scales
    scaled = planes * (2.0 ** -np.array(exponents))[:, None, None, None]
    if dtype == "bfloat16":
        return (scaled.astype("<f4").view("<u4") >> 16).astype("<u2"), None
    return scaled.astype(RAW[dtype]), None


def with_several_labels(store: MemoryStore) -> MemoryStore:
    """The store with all classes below its own for each sample's labels: of class 0 none."""
    for split in store.members.values():
        old = split.samples
        split.samples = tuple(replace(one, label=-1, labels=tuple(range(one.label))) for one in old)
        split.labels = np.full_like(split.labels, -1)
    return store


def numbers_csv(store: MemoryStore, file: Path) -> Path:
    """Two numbers for each sample that its class and so its planes tell, one far from zero."""
    lines = ["key,age,size"]
    for split in store.members.values():
        lines += [f"{s.key},{10 + 7 * s.label**2},{1e4 - 0.5 * s.label}" for s in split.samples]
    file.write_text("\n".join(lines) + "\n")
    return file
