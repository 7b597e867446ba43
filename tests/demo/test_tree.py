from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from demo.tree import some_picture, staged, stratified
from losa.errors import InputError

LABELS = np.repeat([0, 1, 2], [20, 20, 40])


def test_splits_are_disjoint_and_hold_every_class_in_its_share() -> None:
    rows = stratified(LABELS, {"train": 40, "val": 8, "test": 32}, seed=3)
    assert np.array_equal(np.sort(np.concatenate(list(rows.values()))), np.arange(80))
    for split, per_class in (("train", [10, 10, 20]), ("val", [2, 2, 4]), ("test", [8, 8, 16])):
        assert np.bincount(LABELS[rows[split]]).tolist() == per_class


def test_a_split_depends_on_the_seed_alone() -> None:
    first, again, other = (stratified(LABELS, {"train": 20}, seed)["train"] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_asking_for_more_pictures_than_there_are_is_refused() -> None:
    with pytest.raises(InputError, match="of 80 pictures"):
        stratified(LABELS, {"train": 81}, seed=0)


def test_an_interrupted_folder_does_not_appear(tmp_path: Path) -> None:
    def interrupted() -> None:
        with staged(tmp_path / "tree") as staging:
            (staging / "a").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="holds no pictures"):
        some_picture(tmp_path)
