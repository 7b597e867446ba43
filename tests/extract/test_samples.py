"""Claims of losa.extract.samples."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from losa.errors import InputError
from losa.extract.annotations import Listed
from losa.extract.media import Media
from losa.extract.samples import Dataset, Listing, arranged
from losa.features import Sample

HERE = Path("here")


def listing(*lines: Listed) -> Listing:
    return Listing("it", HERE, HERE, lines)


def test_a_sample_without_a_piece_is_a_file_below_the_root() -> None:
    one, two = Sample("a", "a.png", 0), Sample("b", "x.tar/b.png", 0)
    piece = Media(Path("x.tar"), 512, 9)
    dataset = Dataset("it", HERE, {"train": (one, two)}, ("c",), {"x.tar/b.png": piece})
    assert dataset.media(one) == Media(HERE / "a.png")
    assert dataset.media(two) is piece


def test_classes_that_a_reader_fixes_keep_their_numbers() -> None:
    lines = [Listed("a.png", "owl", "train", "a"), Listed("b.png", "ant", "train", "b")]
    dataset = arranged(Listing("it", HERE, HERE, lines, ("owl", "bat", "ant")), 0)
    assert dataset.classes == ("owl", "bat", "ant")
    assert [sample.label for sample in dataset.splits["train"]] == [0, 2]


def test_samples_of_several_classes_are_parted_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    lines = [Listed(f"{n}.png", None, None, f"{n}", (f"c{n % 3}",)) for n in range(10)]
    dataset = arranged(listing(*lines), 0)
    assert {name: len(listed) for name, listed in dataset.splits.items()} == {
        "train": 8,
        "val": 2,
    }
    assert "a seeded fifth of the samples is val" in caplog.text


def test_samples_without_labels_are_not_parted_and_this_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    dataset = arranged(listing(*[Listed(f"{n}.png", None, None, f"{n}") for n in range(10)]), 0)
    assert {name: len(listed) for name, listed in dataset.splits.items()} == {"train": 10}
    assert "no labels: all 10 samples are train, and none val" in caplog.text


def test_a_split_may_have_no_labels_where_another_has() -> None:
    dataset = arranged(
        listing(Listed("a.png", "owl", "train", "a"), Listed("b.png", None, "test", "b")), 0
    )
    assert [sample.label for sample in dataset.splits["test"]] == [-1]
    assert dataset.classes == ("owl",)


def test_nothing_listed_and_labels_that_are_missing_are_refused() -> None:
    with pytest.raises(InputError, match="here: lists no samples"):
        arranged(listing(), 0)
    with pytest.raises(InputError, match="here: line 3 has no label, and line 2 has one"):
        arranged(
            listing(
                Listed("a.png", "owl", "train", "line 2"), Listed("b.png", None, "train", "line 3")
            ),
            0,
        )
