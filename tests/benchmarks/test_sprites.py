from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.sprites import POSITIONS, SHAPES, SIDE, TASKS, Sprite, draw, sprites

COUNTS = {"train": 64, "val": 32}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sprites("location", tmp_path_factory.mktemp("sprites"), COUNTS)


def centre(path: Path) -> tuple[float, float]:
    """Centre of mass in pixels, from the picture alone."""
    with Image.open(path) as image:
        mass = np.asarray(image, dtype=np.float64)
    middles = np.arange(SIDE) + 0.5
    return (
        float((mass.sum(axis=0) * middles).sum() / mass.sum()),
        float((mass.sum(axis=1) * middles).sum() / mass.sum()),
    )


def test_the_class_is_the_horizontal_centre_of_mass_of_the_picture(tree: Path) -> None:
    files = list(tree.rglob("*.png"))
    assert len(files) == sum(COUNTS.values())
    for path in files:
        nearest = int(np.abs(POSITIONS - centre(path)[0]).argmin())
        assert nearest // 2 == int(path.parent.name)


def test_the_vertical_position_says_nothing_of_the_class(tree: Path) -> None:
    files = list((tree / "train").rglob("*.png"))
    heights = [centre(path)[1] for path in files]
    assert abs(np.corrcoef(heights, [int(p.parent.name) for p in files])[0, 1]) < 0.4


def test_classes_are_balanced_and_splits_do_not_share_a_picture(tree: Path) -> None:
    for split, count in COUNTS.items():
        sizes = [len(list(folder.iterdir())) for folder in (tree / split).iterdir()]
        assert sizes == [count // TASKS["location"].classes] * TASKS["location"].classes
    pictures = [path.read_bytes() for path in tree.rglob("*.png")]
    assert len(set(pictures)) == len(pictures)


def test_the_same_seed_renders_the_same_pictures(tree: Path, tmp_path: Path) -> None:
    again = sprites("location", tmp_path, COUNTS)
    for path in tree.rglob("*.png"):
        assert path.read_bytes() == (again / path.relative_to(tree)).read_bytes()


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_turning_a_sprite_leaves_its_centre_and_its_area(shape: str, tmp_path: Path) -> None:
    masses = []
    for number, angle in enumerate((0.0, 1.0, 2.5)):
        path = tmp_path / f"{number}.png"
        draw([Sprite(shape, 10.0, angle, 30.0, 20.0)]).save(path)
        assert centre(path) == pytest.approx((30.0, 20.0), abs=0.15)
        with Image.open(path) as image:
            masses.append(np.asarray(image, dtype=np.float64).sum())
    assert max(masses) / min(masses) < 1.05


def test_several_sprites_share_a_picture() -> None:
    one, two = Sprite("square", 6.0, 0.0, 16.0, 16.0), Sprite("heart", 6.0, 0.0, 48.0, 48.0)
    both = np.asarray(draw([one, two]), dtype=np.int64)
    assert np.array_equal(both, np.asarray(draw([one])) + np.asarray(draw([two]), dtype=np.int64))
