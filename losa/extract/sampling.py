"""Which frames of a clip are seen: how many, how far apart, from where, and what short clips do.

Everything here is whole numbers and fractions: the same frames on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, Final, Literal, get_args

from losa.errors import MismatchError, UsageError

CLIP_RULES: Final = 1
"""Version of how frames are chosen: a change changes every feature of a clip."""

Short = Literal["pad", "loop", "fail"]
DecoderName = Literal["decord", "pyav"]
SHORTS: Final[tuple[str, ...]] = get_args(Short)
DECODERS: Final[tuple[str, ...]] = get_args(DecoderName)
CENTRE: Final = Fraction(1, 2)
MAX_FRAMES: Final = 1024
MAX_STRIDE: Final = 1024


@dataclass(frozen=True, slots=True)
class ClipSampling:
    """How a file of frames becomes a clip of ``frames`` of them.

    Args:
        frames: frames of a clip.
        stride: from one frame to the next; ``None``: the file is parted into so many equal
            segments, and the middle of each is taken.
        short: what a file of fewer frames does: ``pad`` repeats its last one, ``loop`` begins
            again, ``fail`` is an error of this sample.
        decoder: what reads the frames: part of what the pixels are.
        clips: test views along time.
        crops: test views along the longer side.
        every: of the frames of a clip only each ``every``-th is decoded, for backbones that
            do not look at the others.
        offset: the first of those.

    Raises:
        UsageError: a value is out of range.

    Example:
        >>> ClipSampling(4).indices(100), ClipSampling(4, stride=2).indices(100)
        ((12, 37, 62, 87), (47, 49, 51, 53))
        >>> ClipSampling(4, stride=2).indices(3), ClipSampling(4, short="loop").indices(3)
        ((0, 2, 2, 2), (0, 1, 2, 0))
    """

    frames: int
    stride: int | None = None
    short: Short = "pad"
    decoder: DecoderName = "decord"
    clips: int = 1
    crops: int = 1
    every: int = 1
    offset: int = 0

    def __post_init__(self) -> None:
        for flag, value, most in (
            ("--frames", self.frames, MAX_FRAMES),
            ("--frame-stride", 1 if self.stride is None else self.stride, MAX_STRIDE),
            ("--clips", self.clips, MAX_FRAMES),
            ("--crops", self.crops, MAX_FRAMES),
        ):
            if type(value) is not int or not 1 <= value <= most:
                raise UsageError(flag, f"{value!r} is not a number of 1 to {most}", "see --help")
        assert 0 <= self.offset < self.every <= self.frames

    @property
    def kept(self) -> int:
        """Frames of a clip that are decoded."""
        return len(range(self.offset, self.frames, self.every))

    @property
    def needed(self) -> int:
        """Frames that a file must have so as not to be short."""
        return self.frames if self.stride is None else (self.frames - 1) * self.stride + 1

    @property
    def test_views(self) -> int:
        """Rows of each sample of a split that is not trained on."""
        return self.clips * self.crops

    def indices(self, available: int, place: Fraction = CENTRE) -> tuple[int, ...]:
        """Frames to decode of a file with so many.

        Args:
            available: frames of the file, one at least.
            place: where the clip lies, from 0 up to but without 1: of all starts that there are;
                without a stride, of the way through each segment.
        """
        wanted = range(self.offset, self.frames, self.every)
        if available < self.needed:
            step = self.stride or 1
            return tuple(self._beyond(number * step, available) for number in wanted)
        if self.stride is None:
            return tuple(int((number + place) * available / self.frames) for number in wanted)
        start = int(place * (available - self.needed + 1))
        return tuple(start + number * self.stride for number in wanted)

    def test_view(self, view: int) -> tuple[Fraction, Fraction]:
        """Where a test view lies, in time and along the longer side, both from 0 to 1.

        View 0 is the clip and the crop nearest the middle, and of two as near the earlier.
        Clips lie in the middle of equal parts of all starts, crops from one end to the other.

        Example:
            >>> [str(ClipSampling(8, clips=3).test_view(view)[0]) for view in range(3)]
            ['1/2', '1/6', '5/6']
            >>> [str(ClipSampling(8, crops=3).test_view(view)[1]) for view in range(3)]
            ['1/2', '0', '1']
        """
        clip, crop = divmod(view, self.crops)
        places = [Fraction(2 * number + 1, 2 * self.clips) for number in range(self.clips)]
        sides = [CENTRE]
        if self.crops > 1:
            sides = [Fraction(number, self.crops - 1) for number in range(self.crops)]
        return _from_middle(places)[clip], _from_middle(sides)[crop]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, the inverse of :meth:`from_json`."""
        return {**asdict(self), "rules": CLIP_RULES}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ClipSampling:
        """Rebuild from :meth:`to_json`'s values.

        Raises:
            MismatchError: frames were chosen under other rules, or by a decoder not known here.
        """
        found = value["rules"], value["short"], value["decoder"]
        if found[0] != CLIP_RULES or found[1] not in SHORTS or found[2] not in DECODERS:
            raise MismatchError(
                "preprocessing",
                "frames were chosen under rules {}, --short {} and --decoder {}".format(*found),
                f"use the losa that wrote it, or extract again: here are rules {CLIP_RULES}",
            )
        return cls(**{name: item for name, item in value.items() if name != "rules"})

    def _beyond(self, number: int, available: int) -> int:
        """A frame of a file that is too short for it."""
        return number % available if self.short == "loop" else min(number, available - 1)


def _from_middle(places: list[Fraction]) -> list[Fraction]:
    """Places in the order of their distance from the middle."""
    return sorted(places, key=lambda place: (abs(place - CENTRE), place))
