"""Rendered pictures of white sprites on black, whose class is one factor and all else is random.

After dSprites: a sprite is a square, an ellipse or a heart of some size, turned and placed. In the
``location`` task the class is its horizontal position, 16 classes of two positions each. A task is
a function from a class and a generator to sprites, so that another is one function and one entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from demo.tree import staged

SIDE: Final = 64
POSITIONS: Final = np.linspace(12.0, 52.0, 32)
"""Pixels from the left edge to a sprite's centre of mass, as dSprites' 32 steps."""
COUNTS: Final = MappingProxyType({"train": 800, "val": 200, "test": 1000})

_OVERSAMPLING = 8
_TURN = np.linspace(0.0, 2 * np.pi, 120, endpoint=False)


def _heart() -> NDArray[np.float64]:
    """Outline of a heart as wide as 2, its centre of mass at the origin."""
    x = 16 * np.sin(_TURN) ** 3
    y = -13 * np.cos(_TURN) + 5 * np.cos(2 * _TURN) + 2 * np.cos(3 * _TURN) + np.cos(4 * _TURN)
    # Area centroid of a polygon; x is symmetric already.
    cross = x * np.roll(y, -1) - np.roll(x, -1) * y
    centre = ((y + np.roll(y, -1)) * cross).sum() / (3 * cross.sum())
    return np.stack([x, y - centre], axis=1) / 16


SHAPES: Final[Mapping[str, NDArray[np.float64]]] = MappingProxyType(
    {
        "square": np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]) * 0.8,
        "ellipse": np.stack([np.cos(_TURN), 0.6 * np.sin(_TURN)], axis=1),
        "heart": _heart(),
    }
)
"""Outlines about their centres of mass; ``size`` scales them to pixels."""


@dataclass(frozen=True, slots=True)
class Sprite:
    """A shape, its half width in pixels, its turn in radians, and its centre in pixels."""

    shape: str
    size: float
    angle: float
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Task:
    """How many classes there are, and the sprites of one picture of a class."""

    classes: int
    sprites: Callable[[int, np.random.Generator], Sequence[Sprite]]


def draw(sprites: Sequence[Sprite]) -> Image.Image:
    """A grey picture of the sprites, smoothed at their edges."""
    canvas = Image.new("L", (SIDE * _OVERSAMPLING, SIDE * _OVERSAMPLING))
    for sprite in sprites:
        cos, sin = np.cos(sprite.angle), np.sin(sprite.angle)
        turned = SHAPES[sprite.shape] @ np.array([[cos, sin], [-sin, cos]])
        outline = (turned * sprite.size + (sprite.x, sprite.y)) * _OVERSAMPLING
        ImageDraw.Draw(canvas).polygon([(x, y) for x, y in outline.tolist()], fill=255)
    return canvas.resize((SIDE, SIDE), Image.Resampling.BOX)


def location(label: int, generator: np.random.Generator) -> list[Sprite]:
    """One sprite at one of the two horizontal positions of class ``label``."""
    step = len(POSITIONS) // TASKS["location"].classes
    return [
        Sprite(
            shape=str(generator.choice(sorted(SHAPES))),
            size=generator.uniform(6.0, 11.0),
            angle=generator.uniform(0.0, 2 * np.pi),
            x=float(POSITIONS[label * step + generator.integers(step)]),
            y=generator.uniform(POSITIONS[0], POSITIONS[-1]),
        )
    ]


TASKS: Final[Mapping[str, Task]] = MappingProxyType({"location": Task(16, location)})


def sprites(task: str, cache: Path, counts: Mapping[str, int] = COUNTS, seed: int = 0) -> Path:
    """The folder tree ``cache/<task>/<split>/<class>/<index>.png``, rendered on first use.

    Classes are balanced to within one picture.
    """
    folder = cache / task
    if folder.is_dir():
        return folder
    spec = TASKS[task]
    with staged(folder) as staging:
        for number, (split, count) in enumerate(counts.items()):
            generator = np.random.default_rng((seed, number))
            for index in range(count):
                label = index % spec.classes
                path = staging / split / f"{label:02d}" / f"{index:04d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                draw(spec.sprites(label, generator)).save(path)
    return folder
