"""Claims of losa.live.scoutsample."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from losa.errors import InputError
from losa.extract.datasets import Dataset
from losa.features import Sample
from losa.live.scoutsample import scouted_samples


def listed(split: str, counts: dict[int, int]) -> tuple[Sample, ...]:
    return tuple(
        Sample(f"{split}/{label}/{number}", f"{split}/{label}/{number}", label)
        for label, count in counts.items()
        for number in range(count)
    )


def dataset(**splits: dict[int, int]) -> Dataset:
    parts = {name: listed(name, counts) for name, counts in splits.items()}
    return Dataset("made", Path(), parts, tuple("abcdefgh"))


def test_classes_are_as_even_as_they_can_be_and_a_fifth_is_held_out() -> None:
    found = scouted_samples(
        dataset(train={0: 500, 1: 500, 2: 7}, val={0: 90, 1: 90, 2: 90}), 100, 0
    )
    assert Counter(sample.label for sample in found.held_out) == {0: 7, 1: 7, 2: 6}
    counts = Counter(sample.label for sample in found.train)
    assert counts[2] == 7
    assert abs(counts[0] - counts[1]) <= 1
    assert len(found.samples) == 100


def test_the_same_seed_finds_the_same_samples_whatever_the_listing_s_order() -> None:
    whole = dataset(train={0: 50, 1: 50}, val={0: 20, 1: 20})
    turned = Dataset(
        "made", Path(), {name: part[::-1] for name, part in whole.splits.items()}, whole.classes
    )
    first, again = scouted_samples(whole, 40, 3), scouted_samples(turned, 40, 3)
    assert set(first.samples) == set(again.samples)
    assert set(first.samples) != set(scouted_samples(whole, 40, 4).samples)


def test_without_val_a_part_of_train_is_held_out_and_test_is_never_looked_at() -> None:
    found = scouted_samples(dataset(train={0: 30, 1: 30}, test={0: 30, 1: 30}), 50, 0)
    assert found.held_out_of == "train"
    assert not set(found.train) & set(found.held_out)
    assert {sample.path.partition("/")[0] for sample in found.samples} == {"train"}


def test_with_many_classes_only_as_many_are_looked_at_as_get_ten_samples() -> None:
    counts = dict.fromkeys(range(8), 40)
    found = scouted_samples(dataset(train=counts, val=counts), 50, 0)
    assert len(found.classes) == 5
    assert {sample.label for sample in found.samples} == set(found.classes)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (dataset(val={0: 5, 1: 5}), "has no train"),
        (dataset(train={0: 9}), "1 classes"),
        (dataset(train={-1: 9, 0: 3}), "has no label"),
    ],
)
def test_what_no_probe_can_learn_from_is_refused(made: Dataset, message: str) -> None:
    with pytest.raises(InputError, match=message):
        scouted_samples(made, 100, 0)
