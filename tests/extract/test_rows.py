"""Claims of losa.extract.rows."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from losa.errors import InputError
from losa.extract.augment import view_of
from losa.extract.datasets import load_dataset
from losa.extract.decode import DecodePool
from losa.extract.images import load_pixels
from losa.extract.media import Media
from losa.extract.rows import RowBatch, RowSource, Skipped, none_before
from losa.extract.transforms import Preprocessing
from losa.store import Plan
from losa.store.claims import ShardTask
from losa.store.order import row_order
from losa.store.plan import SplitPlan
from tests.extract.picture_folder import picture_folder
from tests.store.build import small_plan

HALF = (0.5, 0.5, 0.5)
PREPROCESSING = Preprocessing((16, 16), 1.0, "center", "bicubic", HALF, HALF)
TASKS = [ShardTask("train", 0, 0, 6), ShardTask("train", 1, 6, 9)]
BROKEN = "train/green/001.png"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return picture_folder(tmp_path / "pictures", {"train": 3}, size=16)


@pytest.fixture
def broken(pictures: Path) -> Path:
    victim = pictures / BROKEN
    victim.write_bytes(victim.read_bytes()[:60])
    return pictures


def plan() -> Plan:
    return replace(small_plan(shard_rows=6), splits={"train": SplitPlan(9, 9, "")})


def batches(data: Path, *, skip: bool = False, skipped: Skipped = none_before) -> list[RowBatch]:
    dataset = load_dataset(f"folder:{data}", data)
    source = RowSource(dataset, plan(), "skip" if skip else "fail", skipped)
    with DecodePool(PREPROCESSING, workers=0) as pool:
        return list(source.batches(pool, TASKS))


def order(data: Path) -> list[str]:
    """Paths by row: the oracle."""
    listed = sorted(path.relative_to(data).as_posix() for path in data.rglob("*.png"))
    return [listed[index] for index in row_order(9, 0, "train")]


def test_batches_lie_at_fixed_offsets_in_each_shard_and_are_padded(pictures: Path) -> None:
    found = batches(pictures)
    assert [(item.task.shard, item.first, len(item.samples)) for item in found] == [
        (0, 0, 4),
        (0, 4, 2),
        (1, 6, 3),
    ]
    assert {item.decoded.pixels.shape for item in found} == {(4, 16, 16, 3)}
    paths = [sample.path for item in found for sample in item.samples]
    assert paths == order(pictures)
    pixels = np.concatenate([item.decoded.pixels[: len(item.samples)] for item in found])
    for path, image in zip(paths, pixels, strict=True):
        np.testing.assert_array_equal(image, load_pixels(pictures / path, PREPROCESSING))
    assert not found[1].decoded.pixels[2:].any()


def test_an_unreadable_sample_ends_it_or_is_skipped_as_asked(broken: Path) -> None:
    with pytest.raises(InputError, match=r"green/001\.png: .*mend or remove it") as caught:
        batches(broken)
    assert caught.value.exit_code == 3
    failures = {
        item.first + failure.position: failure.code
        for item in batches(broken, skip=True)
        for failure in item.decoded.failures
    }
    assert failures == {order(broken).index(BROKEN): 3}


@pytest.mark.parametrize("is_readable", [True, False])
def test_a_row_without_features_at_other_taps_gets_none_and_keeps_its_reason(
    pictures: Path, is_readable: bool
) -> None:
    row = order(pictures).index(BROKEN)
    if not is_readable:
        shutil.copy(__file__, pictures / BROKEN)
    before = {row: (6, "was locked")}
    found = batches(pictures, skipped=lambda _: before)
    (item,) = [item for item in found if item.first <= row < item.first + len(item.samples)]
    (failure,) = item.decoded.failures
    assert (failure.position, failure.code, failure.message) == (row - item.first, 6, "was locked")
    assert not item.decoded.pixels[failure.position].any()


@pytest.mark.parametrize("skip", [True, False])
def test_a_row_with_features_at_other_taps_must_be_readable(broken: Path, skip: bool) -> None:
    with pytest.raises(InputError, match=r"green/001\.png: .*readable when the other taps"):
        batches(broken, skip=skip, skipped=lambda _: {})


def test_every_row_is_its_view_of_its_sample(pictures: Path) -> None:
    augment = {"policy": "crop-flip", "rules": 1, "seed": 9}
    splits = {"train": SplitPlan(9, 27, ""), "test": SplitPlan(9, 9, "")}
    viewed = replace(plan(), splits=splits, views=3, augment=augment)
    listed = load_dataset(f"folder:{pictures}", pictures).splits["train"]
    dataset = replace(
        load_dataset(f"folder:{pictures}", pictures), splits=dict.fromkeys(splits, listed)
    )
    source = RowSource(dataset, viewed, "fail")
    with DecodePool(PREPROCESSING, workers=0) as pool:
        found = list(
            source.batches(pool, [ShardTask("train", 0, 0, 27), ShardTask("test", 0, 0, 9)])
        )
    pixels = np.concatenate([item.decoded.pixels[: len(item.samples)] for item in found])
    keys = [sample.key for item in found for sample in item.samples]
    seen = set()
    for row, number in enumerate(row_order(27, 0, "train").tolist()):
        view, sample = number // 9, listed[number % 9]
        assert keys[row] == sample.key
        media = view_of(augment, Media(pictures / sample.path), sample.key, view)
        np.testing.assert_array_equal(pixels[row], load_pixels(media, PREPROCESSING))
        seen.add((sample.key, view))
    assert len(seen) == 27
    for row, number in enumerate(row_order(9, 0, "test").tolist(), start=27):
        clean = load_pixels(pictures / listed[number].path, PREPROCESSING)
        np.testing.assert_array_equal(pixels[row], clean)
