"""Who trains, who chooses, who reports."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from losa.adapt.partition import holdout, partition
from losa.errors import InputError
from tests.adapt.memory_store import separable_store


def test_a_store_with_all_splits_is_taken_as_it_is() -> None:
    parts = partition(separable_store(), val_fraction=0.1, seed=0)
    assert parts.test is not None
    assert [len(p.rows) for p in (parts.train, parts.val, parts.test)] == [90, 30, 30]


def test_without_val_a_stratified_share_of_train_is_held_out_and_said_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = separable_store({"train": 80})
    with caplog.at_level(logging.INFO):
        parts = partition(store, val_fraction=0.25, seed=3)
    assert parts.test is None
    assert sorted([*parts.train.rows, *parts.val.rows]) == list(range(80))
    assert np.bincount(store.split("train").labels[parts.val.rows]).tolist() == [5] * 4
    assert len(caplog.records) == 1
    assert "20 of 80 train rows" in caplog.text


def test_the_held_out_rows_are_a_function_of_the_seed() -> None:
    labels = np.repeat(np.arange(5), 20).astype(np.int32)
    assert np.array_equal(holdout(labels, 0.1, 1), holdout(labels, 0.1, 1))
    assert not np.array_equal(holdout(labels, 0.1, 1), holdout(labels, 0.1, 2))


def test_a_class_of_one_stays_in_train_and_a_class_of_two_gives_one() -> None:
    labels = np.array([4, 2, 2, 7, 7, 7], dtype=np.int32)
    held = holdout(labels, 0.01, 0)
    assert np.bincount(labels[held], minlength=8).tolist() == [0, 0, 1, 0, 0, 0, 0, 1]
    held = holdout(labels, 0.99, 0)
    assert np.bincount(labels[held], minlength=8).tolist() == [0, 0, 1, 0, 0, 0, 0, 2]


def test_skipped_rows_do_not_train_but_stay_listed() -> None:
    store = separable_store()
    store.split("train").status[4] = 2
    store.split("val").status[[0, 9]] = 3
    parts = partition(store, val_fraction=0.1, seed=0)
    assert 4 not in parts.train.rows
    assert parts.val.skipped.tolist() == [0, 9]
    assert parts.val.skipped_labels.tolist() == [0, 1]


def test_a_class_without_train_samples_is_named_and_still_evaluated(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = separable_store()
    store.split("train").labels[store.split("train").labels == 2] = 1
    parts = partition(store, val_fraction=0.1, seed=0)
    assert "split val) holds 1 classes that train lacks (class2)" in caplog.text
    assert (store.split("val").labels[parts.val.rows] == 2).any()


def test_labels_outside_the_classes_are_refused() -> None:
    store = separable_store()
    store.split("test").labels[0] = 4
    with pytest.raises(InputError, match=r"split test\): has labels 0..4 of 4 classes"):
        partition(store, val_fraction=0.1, seed=0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [({"test": 8}, "has no train split, only test"), ({"train": 4}, "no readable val row")],
)
def test_a_store_that_cannot_train_is_refused(rows: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        partition(separable_store(rows), val_fraction=0.1, seed=0)


def test_a_train_split_of_skipped_rows_is_refused() -> None:
    store = separable_store()
    store.split("train").status[:] = 2
    with pytest.raises(InputError, match="no readable train row"):
        partition(store, val_fraction=0.1, seed=0)
