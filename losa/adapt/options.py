"""The switches of a side network: their defaults, and what they mean on a grid of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from losa.adapt.folding import Residual
from losa.adapt.head import PoolName
from losa.adapt.mixer import Order, TokenOrder
from losa.errors import UsageError
from losa.features import TokenGrid

Start = Literal["auto", "first"]
TokenAxes = Literal["auto", "joint", "factorised", "space", "time"]


@dataclass(frozen=True, slots=True)
class SideOptions:
    """The switches of a side network, and the one owner of their defaults.

    ``token_rank`` and ``time_rank`` of ``None`` mean the same as ``rank``; ``width`` is that of
    adaptors without mixers, of ``None`` their own. ``clip_frames`` time steps of a clip are seen
    at once, ``clip_stride`` steps apart; of ``None`` all of them, and one of each of as many equal
    parts. What the other switches mean stands in docs/paper.md, row by row.

    Raises:
        UsageError: a rank is below 1, a dropout is outside 0..1, a scale is not above 0, or a name
            is unknown.
    """

    rank: int = 32
    token_rank: int | None = None
    order: Order = "channel-token"
    residual: Residual = "refine"
    start: Start = "auto"
    share_mixers: bool = False
    init_scale: float = 1.0
    mixer_norm: bool = False
    pool: PoolName = "auto"
    dropout: float = 0.0
    width: int | None = None
    token_mixing: TokenAxes = "auto"
    token_order: TokenOrder = "space-time"
    time_rank: int | None = None
    clip_frames: int | None = None
    clip_stride: int | None = None

    def __post_init__(self) -> None:
        self._check_counts()
        if not 0.0 <= self.dropout < 1.0:
            raise UsageError("--dropout", f"{self.dropout} is not a share", "give 0 to below 1")
        if not 0.0 < self.init_scale < float("inf"):
            raise UsageError("--init-scale", f"{self.init_scale} is no scale", "give more than 0")
        for name, value, choices in (
            ("--order", self.order, get_args(Order)),
            ("--residual", self.residual, get_args(Residual)),
            ("--start", self.start, get_args(Start)),
            ("--pool", self.pool, get_args(PoolName)),
            ("--token-mixing", self.token_mixing, get_args(TokenAxes)),
            ("--token-order", self.token_order, get_args(TokenOrder)),
        ):
            if value not in choices:
                raise UsageError(name, f"{value!r} is unknown", f"use one of {choices}")

    def _check_counts(self) -> None:
        widths = {
            "--rank": self.rank,
            "--token-rank": self.token_rank,
            "--width": self.width,
            "--time-rank": self.time_rank,
        }
        counts = {"--clip-frames": self.clip_frames, "--clip-stride": self.clip_stride}
        for name, number in (widths | counts).items():
            if number is not None and number < 1:
                what = "width" if name in widths else "number of time steps"
                raise UsageError(name, f"{number} is not a {what}", "give 1 or more")
        if self.clip_stride is not None and self.clip_frames is None:
            raise UsageError("--clip-stride", "needs --clip-frames", "give both")

    @property
    def ranks(self) -> tuple[int, int]:
        """Widths of the channel and of the token bottleneck."""
        return self.rank, self.rank if self.token_rank is None else self.token_rank

    @property
    def along_time(self) -> int:
        """Width of the bottleneck along time."""
        return self.rank if self.time_rank is None else self.time_rank

    def mixing_on(self, grid: TokenGrid) -> TokenAxes:
        """Along what the tokens of a grid are mixed; one time step's are mixed jointly.

        Raises:
            UsageError: time is to be mixed where there is none, or a switch has nothing to act on.

        Example:
            >>> SideOptions().mixing_on(TokenGrid(4, 4, time=8)), SideOptions().mixing_on(
            ...     TokenGrid(4, 4)
            ... )
            ('factorised', 'joint')
        """
        found = "factorised" if self.token_mixing == "auto" else self.token_mixing
        if grid.time == 1:
            if found == "time":
                raise UsageError("--token-mixing", "time: there is one time step", "give space")
            found = "joint"
        idle = {
            "--time-rank": self.time_rank is not None and found not in ("factorised", "time"),
            "--token-order": self.token_order != "space-time" and found != "factorised",
            "--token-rank": self.token_rank is not None and found == "time",
        }
        for name in (name for name, is_idle in idle.items() if is_idle):
            what = f"has nothing to act on: tokens are mixed along {SEEN_AS[found]}"
            raise UsageError(name, what, "leave it away, or give another --token-mixing")
        return found

    @property
    def starts_at_first(self) -> bool:
        """Whether ``y_0`` is the first plane where the residual itself starts at zero."""
        return self.start == "first" and self.residual != "stream"


SEEN_AS: Final[Mapping[TokenAxes, str]] = {
    "joint": "all tokens at once",
    "factorised": "space and time",
    "space": "space alone",
    "time": "time alone",
}
"""What tokens are mixed along, in words."""
