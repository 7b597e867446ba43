"""Claims of losa.extract.augment: a view is a function of its own seed, and timm's."""

from __future__ import annotations

import ast
import hashlib
import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from timm.data.transforms import RandomResizedCropAndInterpolation

from losa.errors import MismatchError
from losa.extract.augment import POLICIES, augment_of, check_rules, view_of, view_seed
from losa.extract.decode import DecodePool
from losa.extract.images import MAX_PIXELS, ImageError, ImageStatus, load_pixels
from losa.extract.media import Media
from losa.extract.transforms import Preprocessing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALL = Preprocessing((16, 24), 0.875, "center", "bicubic", MEAN, STD)


@pytest.fixture(name="picture")
def fixture_picture(tmp_path: Path) -> Path:
    """Smooth noise, larger than what comes out, so that every crop is another one."""
    values = np.random.default_rng(3).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    Image.fromarray(values).resize((61, 47)).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def views(picture: Path, policy: str, count: int, key: str = "a") -> list[Media]:
    return [view_of(augment_of(policy, 7), Media(picture), key, view) for view in range(count)]


def by_timm(picture: Path, policy: str, seed: int) -> np.ndarray:
    """The oracle: timm's own transforms one after another, from generators just seeded."""
    random.seed(seed)
    image = Image.open(picture).convert("RGB")
    crop: Any = RandomResizedCropAndInterpolation
    image = crop((16, 24), (0.35, 1.0), interpolation="bicubic")(image)
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if policy == "randaug":
        again = random.getrandbits(64)
        random.seed(again)
        np.random.seed([again >> 32, again % 2**32])  # noqa: NPY002 -- what timm draws from
        options = {"translate_const": 7, "img_mean": (124, 116, 104)}
        image = rand_augment_transform("rand-m7-n2-mstd0.5-inc1", options)(image)
    return np.array(image)


@pytest.mark.parametrize("size", [(61, 47), (47, 61), (40, 40), (9, 90), (90, 9), (1, 1), (2, 3)])
def test_crops_of_any_shape_are_timms(tmp_path: Path, size: tuple[int, int]) -> None:
    values = np.random.default_rng(3).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    Image.fromarray(values).resize(size).save(tmp_path / "picture.png")
    for media in views(tmp_path / "picture.png", "crop-flip", 40)[1:]:
        wanted = by_timm(media.path, media.policy, media.view_seed)
        np.testing.assert_array_equal(load_pixels(media, SMALL), wanted)


@pytest.mark.parametrize("policy", POLICIES)
def test_views_are_timms_transforms_drawn_from_the_views_own_seed(
    picture: Path, policy: str
) -> None:
    for media in views(picture, policy, 12)[1:]:
        wanted = by_timm(picture, policy, media.view_seed)
        np.testing.assert_array_equal(load_pixels(media, SMALL), wanted)


def test_the_seed_is_the_documented_hash_of_seed_key_and_view() -> None:
    text = '[5,"train/b\\u00e9.png",3]'
    wanted = int(hashlib.sha256(text.encode("ascii")).hexdigest()[:16], 16)
    assert view_seed(5, "train/bé.png", 3) == wanted
    assert json.loads(text) == [5, "train/bé.png", 3]
    others = [view_seed(*given) for given in ((6, "a", 3), (5, "b", 3), (5, "a", 4))]
    assert len({view_seed(5, "a", 3), *others}) == 4


def test_view_0_is_the_clean_picture(picture: Path) -> None:
    clean = views(picture, "randaug", 1)[0]
    assert clean == Media(picture)
    np.testing.assert_array_equal(load_pixels(clean, SMALL), load_pixels(picture, SMALL))


@pytest.mark.parametrize("policy", POLICIES)
def test_views_have_the_size_of_the_clean_one_and_differ_from_it_and_each_other(
    picture: Path, policy: str
) -> None:
    found = [load_pixels(media, SMALL) for media in views(picture, policy, 6)]
    assert {pixels.shape for pixels in found} == {(16, 24, 3)}
    assert len({pixels.tobytes() for pixels in found}) == 6


@pytest.mark.parametrize("workers", [0, 1, pytest.param(2, marks=pytest.mark.slow)])
def test_worker_processes_threads_and_any_order_give_the_same_pixels(
    picture: Path, workers: int
) -> None:
    items = [*views(picture, "randaug", 5), *views(picture, "crop-flip", 5)]
    wanted = [load_pixels(media, SMALL) for media in items]
    with DecodePool(SMALL, workers=workers) as pool:
        for order in (range(10), (8, 3, 5, 0, 7, 1, 6, 2, 9, 4)):
            shuffled = [items[number] for number in order]
            groups = [shuffled[first : first + 2] for first in range(0, 10, 2)]
            found = np.concatenate([found.pixels for found in pool.batches(groups, pad_to=2)])
            for number, pixels in zip(order, found, strict=True):
                np.testing.assert_array_equal(pixels, wanted[number])


def test_threads_at_once_give_the_same_pixels(picture: Path) -> None:
    items = views(picture, "randaug", 9) * 8
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda media: load_pixels(media, SMALL), items))
    for media, pixels in zip(items, found, strict=True):
        np.testing.assert_array_equal(pixels, load_pixels(media, SMALL))


@pytest.mark.parametrize("policy", POLICIES)
def test_the_callers_random_numbers_neither_matter_nor_change(picture: Path, policy: str) -> None:
    media = views(picture, policy, 2)[1]
    first = load_pixels(media, SMALL)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 -- a caller's
    wanted = random.random(), np.random.rand()  # noqa: NPY002 -- a caller's
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 -- a caller's
    np.testing.assert_array_equal(load_pixels(media, SMALL), first)
    assert (random.random(), np.random.rand()) == wanted  # noqa: NPY002 -- a caller's


def test_nothing_else_in_losa_draws_from_the_global_generators() -> None:
    # While a view is drawn in a thread of the command itself, such a draw would change its pixels.
    root = Path(__file__).parents[2] / "losa"
    users = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                users |= {path.name for name in node.names if name.name == "random"}
            if isinstance(node, ast.ImportFrom) and node.module == "random":
                users.add(path.name)
            parts = ast.unparse(node).split(".") if isinstance(node, ast.Attribute) else []
            name = parts[2] if parts[:2] == ["np", "random"] and len(parts) > 2 else ""
            if name.islower() and not name.startswith("default_rng"):
                users.add(path.name)
    assert users == {"augment.py"}


def test_what_is_too_large_to_resize_is_so_in_every_view(tmp_path: Path) -> None:
    # 2 by 40,000 pixels, whose clean view would be resized to 16 by 320,000.
    Image.new("L", (2, 40_000)).save(tmp_path / "long.png")
    wide = Preprocessing((64, 64), 1.0, "center", "bicubic", MEAN, STD)
    assert MAX_PIXELS < 64 * 64 * 20_000
    for media in views(tmp_path / "long.png", "crop-flip", 2):
        with pytest.raises(ImageError) as caught:
            load_pixels(media, wide)
        assert caught.value.code == ImageStatus.TOO_LARGE


def test_where_nothing_is_augmented_views_are_test_views(picture: Path) -> None:
    media = view_of(None, Media(picture), "a", 3)

    assert (media.view, media.policy, media.path) == (3, "", picture)


def test_views_of_other_rules_are_refused() -> None:
    check_rules(None)
    check_rules(augment_of("randaug", 3))
    for change in ({"policy": "mixup"}, {"rules": 2}):
        with pytest.raises(MismatchError, match="augment: views were augmented by"):
            check_rules({**augment_of("randaug", 3), **change})
