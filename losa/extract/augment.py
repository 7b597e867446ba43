"""Augmented views of an image: what each looks like is drawn from its own seed and nothing else.

The policies are timm's. RandAugment draws from the global generators of Python and numpy, which are
seeded for each view anew and put back, one view at a time: the same pixels come out in a worker
process and in a thread, in any order. Nothing else in losa draws from those.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from losa.errors import MismatchError
from losa.extract.media import Media
from losa.extract.transforms import Preprocessing

AUGMENT_RULES: Final = 1
"""Version of what the policies do: a change changes every view but the first."""

POLICIES: Final = ("crop-flip", "randaug")
RANDAUG: Final = "rand-m7-n2-mstd0.5-inc1"
CROP_SCALE: Final = (0.35, 1.0)
"""Share of the area that a crop keeps. Of less, a picture often shows no more what it is of."""

CROP_RATIO: Final = (3 / 4, 4 / 3)
"""Width over height of what is cropped."""

_Transform = Callable[[Image.Image], Image.Image]
_one_at_a_time = threading.Lock()


def augment_of(policy: str, seed: int) -> dict[str, Any]:
    """What a plan says of its augmented views."""
    return {"policy": policy, "rules": AUGMENT_RULES, "seed": seed}


def check_rules(augment: Mapping[str, Any] | None) -> None:
    """Refuse to add views to those that another losa has drawn.

    Raises:
        MismatchError: the policy or its rules are not this version's.
    """
    if augment is None or (augment["policy"] in POLICIES and augment["rules"] == AUGMENT_RULES):
        return
    what = f"views were augmented by {augment['policy']!r} under rules {augment['rules']}"
    raise MismatchError("augment", what, "use the losa that wrote it, or extract again")


def view_of(
    augment: Mapping[str, Any] | None,
    media: Media,
    key: str,
    view: int,
    *,
    is_trained_on: bool = False,
) -> Media:
    """Where a sample's bytes are, as one of its views; ``augment`` is the plan's for its split.

    Where nothing is augmented, they are test views of a clip. ``is_trained_on``: see ``Media``.

    Example:
        >>> from pathlib import Path
        >>> picture = Media(Path("a.png"))
        >>> view_of(None, picture, "a", 0) == picture
        True
        >>> view_of(augment_of("randaug", 0), picture, "a", 3).view
        3
    """
    if view == 0:
        return replace(media, is_trained_on=True) if is_trained_on else media
    if augment is None:
        return media.as_test_view(view)
    return media.as_view(view, view_seed(augment["seed"], key, view), augment["policy"])


def view_seed(seed: int, key: str, view: int) -> int:
    """What a view of a sample is drawn from.

    Source: docs/store-format.md, section "Views".
    """
    text = json.dumps([seed, key, view], separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def augmented(
    image: Image.Image, media: Media, preprocessing: Preprocessing
) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of an augmented view of an upright RGB image, not yet normalised."""
    assert media.policy in POLICIES
    draw = random.Random(media.view_seed)
    view = _crop_flip(image, preprocessing, draw)
    if media.policy == "randaug":
        transform = _randaug(preprocessing)
        with _drawn_from(draw.getrandbits(64)):
            view = transform(view)
    return np.array(view)


def _crop_flip(
    image: Image.Image, preprocessing: Preprocessing, draw: random.Random
) -> Image.Image:
    """Any part of an image at the size that is wanted, every other time left to right.

    timm's RandomResizedCropAndInterpolation, draw for draw: that needs all of torch in a process
    that only decodes.
    """
    height, width = preprocessing.img_size
    left, top, *sides = _crop_box(image.size, draw)
    cut = image.crop((left, top, left + sides[0], top + sides[1]))
    cut = cut.resize((width, height), Image.Resampling[preprocessing.interpolation.upper()])
    is_flipped = draw.random() < 0.5  # noqa: PLR2004 -- one half
    return cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if is_flipped else cut


def _crop_box(size: tuple[int, int], draw: random.Random) -> tuple[int, int, int, int]:
    """Left, top, width and height of a crop; the middle, where none of ten fits into the image."""
    width, height = size
    low, high = CROP_RATIO
    for _ in range(10):
        area = draw.uniform(*CROP_SCALE) * (width * height)
        ratio = math.exp(draw.uniform(math.log(low), math.log(high)))
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if across <= width and down <= height:
            top = draw.randint(0, height - down)
            return draw.randint(0, width - across), top, across, down
    across = min(width, round(height * high))
    down = min(height, round(width / low))
    return (width - across) // 2, (height - down) // 2, across, down


@contextmanager
def _drawn_from(seed: int) -> Iterator[None]:
    """Let timm draw from generators of our own, which no other thread draws from.

    To seed the global ones would not do: whoever draws from them meanwhile changes the picture.
    """
    from timm.data import auto_augment

    module: Any = auto_augment
    of_numpy = np.random.RandomState([seed >> 32, seed & (2**32 - 1)])
    with _one_at_a_time:
        before = module.random, module.np
        module.random, module.np = random.Random(seed), SimpleNamespace(random=of_numpy)
        try:
            yield
        finally:
            module.random, module.np = before


@cache
def _randaug(preprocessing: Preprocessing) -> _Transform:
    """RandAugment of timm, which is first needed here, and torch with it."""
    from timm.data.auto_augment import rand_augment_transform

    mean = tuple(min(255, round(255 * value)) for value in preprocessing.mean)
    # As timm's own training transform sets them.
    hparams = {"translate_const": int(min(preprocessing.img_size) * 0.45), "img_mean": mean}
    transform: _Transform = rand_augment_transform(RANDAUG, hparams)
    return transform
