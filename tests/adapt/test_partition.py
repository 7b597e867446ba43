"""Who trains, who chooses, who reports."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest

from losa.adapt.partition import clean_rows, holdout, partition
from losa.errors import InputError, UsageError
from losa.store.order import row_places
from tests.adapt.memory_store import separable_store


def test_a_store_with_all_splits_is_taken_as_it_is() -> None:
    parts = partition(separable_store(), val_fraction=0.1, seed=0)
    assert parts.val is not None
    assert parts.test is not None
    assert [len(p.rows) for p in (parts.train, parts.val, parts.test)] == [90, 30, 30]


def test_without_val_a_stratified_share_of_train_is_held_out_and_said_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = separable_store({"train": 80})
    with caplog.at_level(logging.INFO):
        parts = partition(store, val_fraction=0.25, seed=3)
    assert parts.test is None
    assert parts.val is not None
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
    assert parts.val is not None
    assert parts.val.skipped.tolist() == [0, 9]
    assert parts.val.skipped_labels.tolist() == [0, 1]


def test_a_class_without_train_samples_is_named_and_still_evaluated(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = separable_store()
    store.split("train").labels[store.split("train").labels == 2] = 1
    parts = partition(store, val_fraction=0.1, seed=0)
    assert "split val) holds 1 classes that train lacks (class2)" in caplog.text
    assert parts.val is not None
    assert (store.split("val").labels[parts.val.rows] == 2).any()


def test_labels_outside_the_classes_are_refused() -> None:
    store = separable_store()
    store.split("test").labels[0] = 4
    with pytest.raises(InputError, match=r"split test\): has labels 0..4 of 4 classes"):
        partition(store, val_fraction=0.1, seed=0)


@pytest.mark.parametrize("name", ["train", "val"])
def test_samples_without_a_label_are_refused(name: str) -> None:
    store = separable_store()
    split = store.split(name)
    split.labels[0] = -1
    first = split.source_index[0]
    samples = list(split.samples)
    samples[first] = replace(samples[first], label=-1)
    split.samples = tuple(samples)
    with pytest.raises(InputError, match=rf"split {name}\): has samples without a label"):
        partition(store, val_fraction=0.1, seed=0)


def test_a_test_split_that_keeps_its_labels_to_itself_is_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = separable_store()
    store.split("test").labels[:] = -1
    assert partition(store, val_fraction=0.1, seed=0).test is None
    assert "split test): has no labels, and is not reported on" in caplog.text


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


def test_of_samples_that_are_held_out_train_has_no_view_and_val_has_the_clean_one() -> None:
    store = separable_store({"train": 80, "test": 8}, views=4)
    split = store.split("train")
    parts = partition(store, val_fraction=0.25, seed=3)
    assert parts.val is not None
    learnt, held = (set(split.source_index[p.rows]) for p in (parts.train, parts.val))
    assert not learnt & held
    assert (len(learnt), len(held)) == (60, 20)
    assert len(parts.train.rows) == 240
    assert sorted(parts.val.rows) == [row for row in clean_rows(split) if row in parts.val.rows]
    assert not split.views[parts.val.rows].any()
    assert np.bincount(split.labels[parts.val.rows]).tolist() == [5] * 4


def test_the_same_samples_are_held_out_whatever_the_number_of_views() -> None:
    held = []
    for views in (1, 3):
        store = separable_store({"train": 60}, views=views)
        split = store.split("train")
        # As a store has it: the permutation of the format, and labels of the samples.
        places = row_places(60, views, store.plan.order_seed, "train")
        split.source_index, split.views = places.source_index, places.view.astype(np.uint8)
        split.labels = (places.source_index * 7 % 4).astype(np.int32)
        parts = partition(store, val_fraction=0.2, seed=1)
        assert parts.val is not None
        held.append(sorted(split.source_index[parts.val.rows].tolist()))
    assert held[0] == held[1]
    assert len(held[0]) == 12


def test_all_views_of_train_learn_where_there_is_a_val() -> None:
    store = separable_store(views=3)
    store.split("train").status[4] = 2
    parts = partition(store, val_fraction=0.1, seed=0)
    assert parts.val is not None
    assert (len(parts.train.rows), len(parts.val.rows)) == (269, 30)


def test_nothing_is_held_out_of_train_where_nothing_is_to_choose(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        parts = partition(separable_store({"train": 80, "test": 8}), val_fraction=0.0, seed=3)
    assert parts.val is None
    assert parts.train.rows.tolist() == list(range(80))
    assert "the last epoch's weights are kept" in caplog.text


def test_a_val_split_is_not_left_idle_without_a_word() -> None:
    with pytest.raises(UsageError, match=r"--val-fraction: is 0, and the store has a val split"):
        partition(separable_store(), val_fraction=0.0, seed=0)
