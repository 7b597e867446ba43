"""Tasks: targets joined to a store's rows by key, whatever their order, views and gaps."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from losa.adapt.partition import partition
from losa.adapt.source import FeatureSource
from losa.adapt.task import TaskSource, known_rows, strata, task_in, task_scale, with_task
from losa.errors import InputError, MismatchError
from losa.features import Sample
from tests.adapt.memory_store import separable_store, with_several_labels


def written(path: Path, header: str, lines: dict[str, str]) -> Path:
    file = path / "targets.csv"
    text = "".join(f"{key},{value}\n" for key, value in lines.items())
    file.write_text(f"{header}\n{text}")
    return file


def keys(store: FeatureSource, split: str) -> list[str]:
    """The key of each row."""
    reader = store.split(split)
    return [reader.samples[i].key for i in reader.source_index.tolist()]


def test_a_store_of_one_label_a_sample_is_taken_as_it_is() -> None:
    store = separable_store()
    assert with_task(store) is store
    assert task_in(store) is None
    assert known_rows(store.split("val")).tolist() == list(range(30))


@pytest.mark.parametrize("views", [1, 3])
def test_classes_of_a_file_reach_their_rows(tmp_path: Path, views: int) -> None:
    store = separable_store(views=views)
    wanted = {f"train/{i:03d}": "even" if i % 2 == 0 else "odd" for i in range(0, 90, 3)}
    wanted |= {f"val/{i:03d}": "odd" for i in range(30)}
    found = with_task(store, written(tmp_path, "key,label", wanted))
    assert found.classes == ("even", "odd")
    split = found.split("train")
    for key, label in zip(keys(store, "train"), split.labels.tolist(), strict=True):
        assert label == (found.classes.index(wanted[key]) if key in wanted else -1)
    assert [key in wanted for key in keys(store, "train")] == np.isin(
        np.arange(split.rows), known_rows(split)
    ).tolist()
    parts = partition(found, val_fraction=0.1, seed=0)
    assert len(parts.train.rows) == 30 * views
    assert (split.labels[parts.train.rows] >= 0).all()
    assert parts.test is None


def test_numbers_of_a_file_reach_their_rows_and_their_scale_is_of_train(tmp_path: Path) -> None:
    store = separable_store(views=2)
    value = {key: f"{i / 7},{-i}" for i, key in enumerate(sorted(set(keys(store, "train"))))}
    value |= {f"val/{i:03d}": "1000,7" for i in range(30)}
    found = with_task(store, written(tmp_path, "key,age,size", value))
    task = task_in(found)
    assert task is not None
    split = found.split("train")
    rows = task.table.numpy()[split.labels]
    want = [[float(x) for x in value[key].split(",")] for key in keys(store, "train")]
    np.testing.assert_array_equal(rows, want)
    parts = partition(found, val_fraction=0.1, seed=0)
    scale = task_scale(task, split, parts.train.rows, "x")
    ages = np.arange(90) / 7
    assert scale[0] == pytest.approx((ages.mean(), ages.std()))


def test_a_number_that_never_changes_is_refused(tmp_path: Path) -> None:
    store = separable_store()
    value = dict.fromkeys(keys(store, "train") + keys(store, "val"), "3.3")
    found = with_task(store, written(tmp_path, "key,age", value))
    with pytest.raises(InputError, match=r"age is 3\.3 for all of train"):
        task_scale(task_in(found), found.split("train"), np.arange(90), "targets.csv")


def test_a_store_of_several_labels_is_a_task_of_its_own() -> None:
    store = with_several_labels(separable_store({"train": 80, "test": 8}))
    found = with_task(store)
    task = task_in(found)
    assert task is not None
    assert (task.kind, task.names, task.digest) == ("labels", store.classes, "")
    split = found.split("train")
    listed = [split.samples[i].labels or () for i in split.source_index.tolist()]
    for row, labels in enumerate(listed):
        line = task.table[int(split.labels[row])].tolist()
        assert tuple(one for one in line if one < 4) == labels
    # Of 80 samples 60 have label 0, 40 have 1, 20 have 2: the rarest is a sample's stratum, and no
    # label at all is one more.
    by_stratum = {int(one): labels for one, labels in zip(strata(split), listed, strict=True)}
    found_by = [by_stratum[one] for one in sorted(by_stratum)]
    assert found_by == [(0, 1, 2), (0, 1), (0,), ()]
    parts = partition(found, val_fraction=0.1, seed=0)
    assert parts.val is not None
    held = [len(listed[row]) for row in parts.val.rows.tolist()]
    assert np.bincount(held, minlength=4).tolist() == [2, 2, 2, 2]


def test_what_is_held_out_of_train_does_not_depend_on_other_splits() -> None:
    # Alone, 3 is train's rarest label; with the test split, 2 would be.
    sets = [(2, 3)] * 10 + [(1, 2)] * 10 + [(0, 1, 2)] * 20
    held = []
    for count in (0, 400):
        store = with_several_labels(separable_store({"train": 40, "test": 4 + count}))
        train, test = store.members["train"], store.members["test"]
        train.samples = tuple(map(labelled, train.samples, sets))
        test.samples = tuple(labelled(one, (0, 1, 3)) for one in test.samples)
        parts = partition(with_task(store), val_fraction=0.2, seed=1)
        assert parts.val is not None
        held.append(parts.val.rows.tolist())
    assert held[0] == held[1]


def labelled(sample: Sample, labels: tuple[int, ...]) -> Sample:
    return replace(sample, labels=labels)


def test_rows_held_out_are_counted_among_those_that_have_a_target(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = separable_store({"train": 90})
    file = written(tmp_path, "key,label", {f"train/{i:03d}": "ab"[i % 2] for i in range(40)})
    with caplog.at_level(logging.INFO):
        partition(with_task(store, file), val_fraction=0.1, seed=0)
    assert "no val split: 4 of 40 train rows" in caplog.text


def test_what_does_not_fit_a_run_or_a_store_is_refused(tmp_path: Path) -> None:
    store = separable_store()
    with pytest.raises(InputError, match="none of its 1 keys is a sample's: 'x'"):
        with_task(store, written(tmp_path, "key,label", {"x": "a"}))
    file = written(tmp_path, "key,label", {"val/001": "c", "val/002": "a"})
    assert with_task(store, file, ("a", "b", "c")).classes == ("a", "b", "c")
    with pytest.raises(MismatchError, match="'c' is none of the run's 2 names"):
        with_task(store, file, ("a", "b"))
    with pytest.raises(InputError, match=r"split train\): has no targets"):
        partition(with_task(store, file), val_fraction=0.1, seed=0)
    numbers = written(tmp_path, "key,age", {"val/001": "2"})
    with pytest.raises(MismatchError, match="1 numbers are not the run's 2 names"):
        with_task(store, numbers, ("age", "size"))


def test_keys_that_no_sample_has_are_counted_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = written(tmp_path, "key,label", {"val/001": "c", "val/002": "a", "x": "a", "y": "a"})
    with caplog.at_level(logging.INFO):
        with_task(separable_store(), file)
    assert "2 of 4 keys are no sample's" in caplog.text
    assert "148 of 150 samples have no target" in caplog.text


def test_a_split_is_the_same_object_every_time(tmp_path: Path) -> None:
    file = written(tmp_path, "key,label", {"val/001": "c", "val/003": "a"})
    found = with_task(separable_store(), file)
    assert isinstance(found, TaskSource)
    assert isinstance(found, FeatureSource)
    assert found.split("val") is found.split("val")


def test_a_file_that_names_one_class_alone_has_nothing_to_learn(tmp_path: Path) -> None:
    store = separable_store()
    lines = {f"train/{i:03d}": "oak" for i in range(90)}
    # That of a stranger's key is none of the store's.
    file = written(tmp_path, "key,label", {**lines, "elsewhere": "elm"})
    with pytest.raises(InputError, match=r"are 'oak': there is nothing to learn; name samples of"):
        with_task(store, file)
    # A run that knows more of them may be measured on it.
    assert with_task(store, file, ("elm", "oak")).classes == ("elm", "oak")
