"""The contract of the two stages: axis letters, token grids, and the spec of a store's features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from losa.errors import UsageError

AXES: Final[Mapping[str, str]] = {
    "n": "samples (rows) of a split",
    "b": "samples of a batch",
    "k": "taps",
    "l": "tokens",
    "d": "channels",
    "r": "rank, the width of a mixer's bottleneck",
    "t": "time steps",
    "s": "space, h * w positions",
    "h": "grid rows, or pixel rows of an image",
    "w": "grid columns, or pixel columns of an image",
    "p": "patch side in pixels",
    "c": "colour",
    "y": "classes",
    "m": "trials of a cohort",
    "e": "pooled features a head sees",
}
"""One letter per axis, for every shape in the package."""

StoreDtype = Literal["float16", "int8", "bfloat16", "float32"]
STORE_DTYPES: Final[tuple[str, ...]] = get_args(StoreDtype)
Regime = Literal["auto", "preadv", "mmap", "resident", "stream", "foreign"]
"""How the rows of a store are read; docs/api.md, section "How a store is read"."""

MAX_DIGITS: Final = 18
"""Digits of a whole number in a text: more than 4,300 of them Python itself refuses."""

ITEM_BYTES: Final[Mapping[str, int]] = {"float16": 2, "int8": 1, "bfloat16": 2, "float32": 4}
SCALE_BYTES: Final = 2
"""Bytes of a token's float16 scale, which only int8 records have."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One listed sample: a key that names it for ever, its path below the root, and its label.

    ``label`` is -1 where there is none, and where there may be several: then ``labels`` holds them,
    ascending, perhaps none of them.
    """

    key: str
    path: str
    label: int
    labels: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class TokenGrid:
    """How a plane's tokens lie: prefix tokens first, then patch tokens, time-major, row-major.

    ``prefix`` counts all of the plane's prefix tokens. They belong to the clip, or, with
    ``is_prefix_per_step``, as many of them to every time step, those of step 0 first.

    Raises:
        UsageError: prefix tokens of the time steps are not as many for each.

    Example:
        >>> TokenGrid(height=14, width=14, prefix=1).num_tokens
        197
        >>> TokenGrid(16, 16, time=8, prefix=8, is_prefix_per_step=True).step_prefix
        1
    """

    height: int
    width: int
    time: int = 1
    prefix: int = 0
    is_prefix_per_step: bool = False

    def __post_init__(self) -> None:
        if self.is_prefix_per_step and (self.time < 1 or self.prefix % self.time):
            raise UsageError(
                "token grid",
                f"{self.prefix} prefix tokens do not belong to {self.time} time steps",
                "give every step as many",
            )

    @property
    def positions(self) -> int:
        """Patch tokens of one time step: s."""
        return self.height * self.width

    @property
    def step_prefix(self) -> int:
        """Prefix tokens that lie beside the patches of one time step, its own or the clip's."""
        return self.prefix // self.time if self.is_prefix_per_step else self.prefix

    @property
    def num_patches(self) -> int:
        """Patch tokens of one sample."""
        return self.time * self.height * self.width

    @property
    def num_tokens(self) -> int:
        """All tokens of one sample, prefix tokens included."""
        return self.prefix + self.num_patches

    def with_time(self, time: int) -> TokenGrid:
        """The same grid of another number of time steps.

        Example:
            >>> TokenGrid(16, 16, time=8, prefix=8, is_prefix_per_step=True).with_time(2).prefix
            2
        """
        prefix = self.step_prefix * time if self.is_prefix_per_step else self.prefix
        return TokenGrid(self.height, self.width, time, prefix, self.is_prefix_per_step)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; what only grids of videos have stands in those alone."""
        found = {
            "height": self.height,
            "width": self.width,
            "time": self.time,
            "prefix": self.prefix,
        }
        return found | ({"is_prefix_per_step": True} if self.is_prefix_per_step else {})


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """What one sample's features are: which taps of which backbone, their tokens, and their dtype.

    Taps are strictly ascending, because ``forward_intermediates`` returns planes in depth order
    whatever order was asked.

    Raises:
        UsageError: taps are empty or not strictly ascending, or the dtype is unknown.

    Example:
        >>> spec = FeatureSpec("vit_b", (2, 5, 8, 11), TokenGrid(14, 14, prefix=1), 768, "float16")
        >>> spec.shape, spec.record_bytes
        ((4, 197, 768), 302592)
    """

    backbone: str
    taps: tuple[int, ...]
    grid: TokenGrid
    channels: int
    dtype: StoreDtype = "float16"

    def __post_init__(self) -> None:
        if not self.taps or list(self.taps) != sorted(set(self.taps)) or self.taps[0] < 0:
            raise UsageError("--taps", f"{self.taps} is not strictly ascending", "sort the taps")
        if self.dtype not in STORE_DTYPES:
            raise UsageError(
                "--store-dtype", f"{self.dtype!r} is unknown", f"use one of {STORE_DTYPES}"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Taps, tokens and channels of one sample: ``(k, l, d)``."""
        return len(self.taps), self.grid.num_tokens, self.channels

    @property
    def record_bytes(self) -> int:
        """Bytes of one record, one sample at one tap, without its scales."""
        return self.grid.num_tokens * self.channels * ITEM_BYTES[self.dtype]

    @property
    def scale_bytes(self) -> int:
        """Bytes of one record's scales, one a token; none but int8 has any.

        Example:
            >>> FeatureSpec("vit_g", (39,), TokenGrid(16, 16, prefix=1), 1408, "int8").scale_bytes
            514
        """
        return self.grid.num_tokens * SCALE_BYTES if self.dtype == "int8" else 0

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample at all taps, scales included."""
        return len(self.taps) * (self.record_bytes + self.scale_bytes)

    def with_taps(self, taps: tuple[int, ...]) -> FeatureSpec:
        """The same features at a subset of the taps."""
        return FeatureSpec(self.backbone, taps, self.grid, self.channels, self.dtype)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, the inverse of :meth:`from_json`."""
        return {
            "backbone": self.backbone,
            "taps": list(self.taps),
            "grid": self.grid.to_json(),
            "channels": self.channels,
            "dtype": self.dtype,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FeatureSpec:
        """Rebuild a spec from :meth:`to_json`'s values."""
        grid = TokenGrid(**value["grid"])
        return cls(value["backbone"], tuple(value["taps"]), grid, value["channels"], value["dtype"])


def is_whole(text: str) -> bool:
    """Whether a text is a whole number from 0 of a size that any use has.

    Example:
        >>> is_whole("12"), is_whole("-1"), is_whole("9" * 5000)
        (True, False, False)
    """
    return text.isdecimal() and len(text) <= MAX_DIGITS


def resolve_taps(text: str, available: tuple[int, ...]) -> tuple[int, ...]:
    """Taps named by ``text`` among ``available`` ones, in ascending order.

    ``all``, ``last``, ``last:4``, ``every:4`` (counted back from the last), ``3,7,11``, or
    ``auto``: every 2nd, 3rd or 4th for up to 12, up to 24, or more available taps.

    Raises:
        UsageError: the text is none of these, names a tap twice, or one that is not available.

    Example:
        >>> resolve_taps("auto", tuple(range(12)))
        (1, 3, 5, 7, 9, 11)
        >>> resolve_taps("every:4", tuple(range(10)))
        (1, 5, 9)
    """
    count = len(available)
    name, _, number = text.partition(":")
    if text == "auto":
        name, number = "every", "2" if count <= 12 else "3" if count <= 24 else "4"  # noqa: PLR2004 -- the contract's depths
    if text == "all":
        return available
    if name in ("last", "every") and (is_whole(number) or (text == "last")):
        step = int(number or "1")
        if 1 <= step <= count:
            return available[-step:] if name == "last" else available[::-1][::step][::-1]
    parts = text.split(",")
    if all(is_whole(part.strip()) for part in parts):
        taps = sorted(int(part) for part in parts)
        if len(set(taps)) == len(taps) and set(taps) <= set(available):
            return tuple(taps)
    raise UsageError(
        "--taps",
        f"{text[:60]!r} does not name taps of {available[0]}..{available[-1]}",
        "use all, auto, last, last:N, every:N or a list such as 3,7,11",
    )
