"""Rendered pictures of white sprites on black, whose class is one factor and all else is random.

After dSprites: a sprite is a square, an ellipse or a heart of some size, turned and placed. In the
``location`` task the class is its horizontal position, in ``orientation`` the turn of a heart (the
one shape that no turn but the full one maps to itself), 16 classes of two steps each. After
CLEVR-count, the class of ``count`` is how many sprites there are, 3 to 10, apart from each other.
A task is a function from a class and a generator to sprites, so that another is one function and
one entry.
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
TURNS: Final = np.linspace(0.0, 2 * np.pi, 32, endpoint=False)
"""Radians of the 32 steps of a full turn."""
FEWEST: Final = 3
"""Sprites in a picture of the first class of ``count``."""
COUNTS: Final = MappingProxyType({"train": 800, "val": 200, "test": 2000})
SEED: Final = 0
VERSION: Final = 1
"""Raised with every change of what is drawn, so that nothing of other pictures is found."""

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

_REACH: Final[Mapping[str, float]] = MappingProxyType(
    {name: float(np.hypot(*outline.T).max()) for name, outline in SHAPES.items()}
)
"""Radius of the circle around each shape of size 1."""
_WITHIN: Final = (8.0, SIDE - 8.0)
"""Pixels between which the centres of several sprites lie: no sprite is cut off."""
_GAP: Final = 1.5
"""Pixels that part two sprites at least, so that their smoothed edges do not meet."""
_PLACES: Final = 50
"""Places tried for each sprite before a picture is begun anew."""


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


def orientation(label: int, generator: np.random.Generator) -> list[Sprite]:
    """A heart at one of the two turns of class ``label``, anywhere."""
    step = len(TURNS) // TASKS["orientation"].classes
    x, y = generator.uniform(POSITIONS[0], POSITIONS[-1], 2)
    turn = float(TURNS[label * step + generator.integers(step)])
    return [Sprite("heart", generator.uniform(6.0, 11.0), turn, float(x), float(y))]


def count(label: int, generator: np.random.Generator) -> list[Sprite]:
    """So many sprites that do not touch each other: ``label`` more than the fewest.

    Their sizes are near one that the picture draws, so that the white area alone does not count
    them.
    """
    wanted = FEWEST + label
    common = generator.uniform(2.5, 5.0)
    while True:
        found: list[Sprite] = []
        for _ in range(_PLACES * wanted):
            x, y = generator.uniform(*_WITHIN, 2)
            size = common * generator.uniform(0.8, 1.2)
            shape = str(generator.choice(sorted(SHAPES)))
            new = Sprite(shape, size, generator.uniform(0.0, 2 * np.pi), float(x), float(y))
            if all(_are_apart(new, other) for other in found):
                found.append(new)
            if len(found) == wanted:
                return found


def _are_apart(one: Sprite, other: Sprite) -> bool:
    """Whether a gap parts the circles around two sprites."""
    reach = sum(_REACH[sprite.shape] * sprite.size for sprite in (one, other))
    return float(np.hypot(one.x - other.x, one.y - other.y)) > reach + _GAP


TASKS: Final[Mapping[str, Task]] = MappingProxyType(
    {
        "location": Task(16, location),
        "orientation": Task(16, orientation),
        "count": Task(8, count),
    }
)


def sprites(task: str, cache: Path, counts: Mapping[str, int] = COUNTS) -> Path:
    """The tree ``cache/<task>-<version>-<counts>/<split>/<class>/<index>.png``, drawn on first use.

    Classes are balanced to within one picture. The name says how many pictures each split has, so
    that a tree of other counts or of another version is not taken for this one.
    """
    folder = cache / "-".join([task, f"v{VERSION}", *map(str, counts.values())])
    if folder.is_dir():
        return folder
    spec = TASKS[task]
    with staged(folder) as staging:
        for number, (split, pictures) in enumerate(counts.items()):
            generator = np.random.default_rng((SEED, number))
            for index in range(pictures):
                label = index % spec.classes
                path = staging / split / f"{label:02d}" / f"{index:04d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                draw(spec.sprites(label, generator)).save(path)
    return folder
