from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import sprites as module
from benchmarks.sprites import (
    FEWEST,
    POSITIONS,
    SHAPES,
    SIDE,
    TASKS,
    TURNS,
    Sprite,
    count,
    draw,
    orientation,
    sprites,
)

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


def moments(path: Path) -> tuple[float, float]:
    """Phases of the sums of mass times z |z|^2 and z^3, z = x + iy from the centre of mass.

    The first turns as the shape does but is small for a heart, hence rough; the second is large
    and turns three times as fast.
    """
    x, y = centre(path)
    middles = np.arange(SIDE) + 0.5
    place = (middles[None] - x) + 1j * (middles[:, None] - y)
    with Image.open(path) as image:
        mass = np.asarray(image, dtype=np.float64)
    found = (mass * np.abs(place) ** 2 * place).sum(), (mass * place**3).sum()
    return float(np.angle(found[0])), float(np.angle(found[1]))


def test_the_class_is_the_turn_of_the_picture(tmp_path: Path) -> None:
    folder = sprites("orientation", tmp_path, {"train": 64})
    upright = tmp_path / "upright.png"
    draw([Sprite("heart", 10.0, 0.0, 32.0, 32.0)]).save(upright)
    reference = moments(upright)
    for path in folder.rglob("*.png"):
        rough, threefold = (
            phase - zero for phase, zero in zip(moments(path), reference, strict=True)
        )
        turn = (threefold + 2 * np.pi * np.round((3 * rough - threefold) / (2 * np.pi))) / 3
        distance = np.abs((turn - TURNS + np.pi) % (2 * np.pi) - np.pi)
        assert distance.min() < 0.03
        assert int(distance.argmin()) // 2 == int(path.parent.name)


def test_no_two_classes_of_orientation_share_a_turn() -> None:
    generator = np.random.default_rng(0)
    drawn = [
        {round(orientation(label, generator)[0].angle, 6) for _ in range(40)}
        for label in range(TASKS["orientation"].classes)
    ]
    assert all(len(turns) == 2 for turns in drawn)
    assert len(set().union(*drawn)) == len(TURNS)


def pieces(path: Path) -> int:
    """Connected bright areas, by flooding from every bright pixel that is still dry."""
    with Image.open(path) as image:
        dry = np.asarray(image) > 64
    found = 0
    while dry.any():
        found += 1
        wet = np.zeros_like(dry)
        wet[np.unravel_index(int(dry.argmax()), dry.shape)] = True
        while True:
            spread = np.pad(wet, 1)
            spread = (
                wet | spread[2:, 1:-1] | spread[:-2, 1:-1] | spread[1:-1, 2:] | spread[1:-1, :-2]
            )
            spread &= dry
            if (spread == wet).all():
                break
            wet = spread
        dry &= ~wet
    return found


def test_the_class_of_count_is_the_number_of_separate_white_areas(tmp_path: Path) -> None:
    folder = sprites("count", tmp_path, {"train": 64})
    for path in folder.rglob("*.png"):
        assert pieces(path) == FEWEST + int(path.parent.name)
        with Image.open(path) as image:
            mass = np.asarray(image)
        assert not np.concatenate([mass[0], mass[-1], mass[:, 0], mass[:, -1]]).any()


def test_the_white_area_alone_does_not_count() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(160) % TASKS["count"].classes
    areas = np.array([np.asarray(draw(count(int(label), generator))).sum() for label in labels])
    means = np.array([areas[labels == label].mean() for label in range(8)])
    nearest = np.abs(areas[:, None] - means).argmin(1)
    assert (nearest == labels).mean() < 0.4


def test_a_tree_of_other_counts_is_another_tree(tmp_path: Path) -> None:
    assert sprites("location", tmp_path, {"train": 2}) != sprites(
        "location", tmp_path, {"train": 3}
    )


def test_a_tree_of_another_version_of_the_pictures_is_another_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = module.sprites("location", tmp_path, {"train": 2})
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    assert module.sprites("location", tmp_path, {"train": 2}) != first


def test_classes_are_balanced_and_splits_do_not_share_a_picture(tree: Path) -> None:
    for split, pictures in COUNTS.items():
        sizes = [len(list(folder.iterdir())) for folder in (tree / split).iterdir()]
        assert sizes == [pictures // TASKS["location"].classes] * TASKS["location"].classes
    contents = [path.read_bytes() for path in tree.rglob("*.png")]
    assert len(set(contents)) == len(contents)


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
