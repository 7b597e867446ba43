"""Rendered clips of something that moves, whose class is the order of their frames and no more.

A clip shows a sprite, a scanned digit or a textured disc, at six places of a row and at six of a
column, before a still background. All of it is drawn before the class and without it; the class
says in which order the places are visited:

- direction: the row from left to right or back, the column downwards or upwards;
- order: the row first or the column first; these are eight classes;
- speed: there and back over every other place, in as many frames, thus twice as fast; four more.

The frames of a clip, as a set, are therefore the same whatever its class. Who looks at each frame
alone and averages cannot do better than chance, by construction. Clips are written as H.264 in mp4,
with the B-frames and the long group of pictures that x264 chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Final

import av
import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image

from demo.assets import MNIST, fetch
from demo.digits import read_csv
from demo.tree import staged

Axis = str
"""``row`` or ``column``."""

SIDE: Final = 112
PLACES: Final = 6
"""Places of a row, and of a column; a clip has twice as many frames."""
FRAMES: Final = 2 * PLACES
RATE: Final = 12
"""Frames a second."""
QUALITY: Final = 18
"""x264's constant rate factor: visually lossless, as its makers say."""
COUNTS: Final = MappingProxyType({"train": 600, "test": 204})
SEED: Final = 0
VERSION: Final = 1
"""Raised with every change of what is drawn, so that nothing of other clips is found."""

_ALONG: Final = tuple(range(PLACES))
_THERE: Final = _ALONG[::2] + _ALONG[1::2][::-1]
_PASSES: Final[Mapping[str, tuple[Axis, tuple[int, ...]]]] = MappingProxyType(
    {
        "right": ("row", _ALONG),
        "left": ("row", _ALONG[::-1]),
        "down": ("column", _ALONG),
        "up": ("column", _ALONG[::-1]),
        "right+left": ("row", _THERE),
        "left+right": ("row", tuple(PLACES - 1 - place for place in _THERE)),
        "down+up": ("column", _THERE),
        "up+down": ("column", tuple(PLACES - 1 - place for place in _THERE)),
    }
)
"""The axis of a pass, and its places in the order in which they are visited."""

CLASSES: Final = (
    *("right-down", "right-up", "left-down", "left-up"),
    *("down-right", "down-left", "up-right", "up-left"),
    *("right+left-down+up", "left+right-up+down", "down+up-right+left", "up+down-left+right"),
)
"""Two passes each, the first one first; a ``+`` is a turn half-way, at twice the speed."""

_MARGIN: Final = 20.0
"""Pixels from an edge to the centre of a sprite at the least: none is cut off."""
_SPREAD: Final = 8.0
"""Pixels by which the ends of a row or of a column vary."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What a clip shows at each of its places, whatever its class.

    ``sprite`` and its opacity ``mask`` are squares; ``row`` and ``column`` hold the centres, x and
    y in pixels, from left to right and from top to bottom.
    """

    background: Float[np.ndarray, "h w 3"]
    sprite: Float[np.ndarray, "s s 3"]
    mask: Float[np.ndarray, "s s"]
    row: Float[np.ndarray, "p 2"]
    column: Float[np.ndarray, "p 2"]


def scene(digits: UInt8[np.ndarray, "n h w"], generator: np.random.Generator) -> Scene:
    """Draw a scene; its sprite is one of ``digits`` or a disc, half of the time each."""
    mask, paint = _digit(digits, generator) if generator.random() < 0.5 else _disc(generator)
    near, far = _MARGIN, SIDE - _MARGIN
    starts = generator.uniform(near, near + _SPREAD, 2)
    ends = generator.uniform(far - _SPREAD, far, 2)
    height, place = generator.uniform(near, far, 2)
    across = np.linspace(starts[0], ends[0], PLACES)
    downwards = np.linspace(starts[1], ends[1], PLACES)
    return Scene(
        background=_background(generator),
        sprite=paint,
        mask=mask,
        row=np.stack([across, np.full(PLACES, height)], axis=1),
        column=np.stack([np.full(PLACES, place), downwards], axis=1),
    )


def order(label: int) -> list[tuple[Axis, int]]:
    """The places that class ``label`` visits, frame by frame.

    Example:
        >>> order(CLASSES.index("right+left-down+up"))[:6]
        [('row', 0), ('row', 2), ('row', 4), ('row', 5), ('row', 3), ('row', 1)]
    """
    passes = [_PASSES[name] for name in CLASSES[label].split("-")]
    return [(axis, place) for axis, places in passes for place in places]


def frames(shown: Scene, label: int) -> UInt8[np.ndarray, "t h w 3"]:
    """The frames of the clip of class ``label``."""
    centres = {"row": shown.row, "column": shown.column}
    return np.stack([_frame(shown, centres[axis][place]) for axis, place in order(label)])


def _frame(shown: Scene, centre: Float[np.ndarray, "2"]) -> UInt8[np.ndarray, "h w 3"]:
    """The background with the sprite on it, at the nearest whole pixel."""
    side = len(shown.mask)
    left, top = np.round(centre - side / 2).astype(int)
    picture = shown.background.copy()
    under = picture[top : top + side, left : left + side]
    under += shown.mask[..., None] * (shown.sprite - under)
    return np.round(picture).astype(np.uint8)


def _digit(
    digits: UInt8[np.ndarray, "n h w"], generator: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Opacity and paint of a digit, of one bright colour."""
    drawn = digits[generator.integers(len(digits))]
    side = int(generator.integers(30, 39))
    mask = np.asarray(Image.fromarray(drawn).resize((side, side), Image.Resampling.BICUBIC)) / 255.0
    return mask, np.broadcast_to(generator.uniform(170, 255, 3), (side, side, 3))


def _disc(generator: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Opacity and paint of a disc with stripes or checks of two bright colours."""
    side = int(generator.integers(24, 33))
    axis = np.arange(side) - (side - 1) / 2
    across, down = np.meshgrid(axis, axis)
    mask = np.clip(side / 2 - np.hypot(across, down), 0.0, 1.0)
    turn, period = generator.uniform(0, np.pi), generator.uniform(5, 9)
    first = np.sin(2 * np.pi * (across * np.cos(turn) + down * np.sin(turn)) / period)
    second = np.sin(2 * np.pi * (down * np.cos(turn) - across * np.sin(turn)) / period)
    is_checked = generator.integers(2)
    share = (np.sign(first * second if is_checked else first)[..., None] + 1) / 2
    return mask, share * generator.uniform(150, 255, 3) + (1 - share) * generator.uniform(
        90, 255, 3
    )


def _background(generator: np.random.Generator) -> NDArray[np.float64]:
    """A smooth random texture between two dark colours."""
    cells = int(generator.integers(2, 8))
    coarse = generator.uniform(0, 255, (cells, cells)).astype(np.uint8)
    smooth = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    share = np.asarray(smooth, dtype=np.float64)[..., None] / 255.0
    return share * generator.uniform(0, 130, 3) + (1 - share) * generator.uniform(0, 130, 3)


def write_clip(path: Path, pixels: UInt8[np.ndarray, "t h w 3"]) -> None:
    """Encode frames as H.264 in mp4."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(RATE))
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt = "yuv420p"
        # One thread: how x264 cuts a frame into slices must not depend on the machine.
        stream.options = {"crf": str(QUALITY), "threads": "1"}
        for picture in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def scanned(cache: Path) -> NDArray[np.uint8]:
    """MNIST's scans ``[n h w]`` of the demo."""
    pixels, _ = read_csv(fetch(MNIST, cache) / MNIST.members, 28)
    return pixels.astype(np.uint8)


def motion(
    cache: Path,
    counts: Mapping[str, int] = COUNTS,
    read: Callable[[Path], NDArray[np.uint8]] = scanned,
) -> Path:
    """The tree ``cache/motion-<version>-<counts>/<split>/<class>/<index>.mp4``, on first use.

    Classes are balanced to within one clip, and no two splits share a digit. ``read`` gives the
    digits of a cache.
    """
    folder = cache / "-".join(["motion", f"v{VERSION}", *map(str, counts.values())])
    if folder.is_dir():
        return folder
    digits = np.random.default_rng(SEED).permutation(read(cache))
    shares: Sequence[NDArray[np.uint8]] = np.array_split(digits, len(counts))
    with staged(folder) as staging:
        for number, (split, clips) in enumerate(counts.items()):
            generator = np.random.default_rng((SEED, number))
            for index in range(clips):
                label = index % len(CLASSES)
                path = staging / split / CLASSES[label] / f"{index:04d}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_clip(path, frames(scene(shares[number], generator), label))
    return folder
