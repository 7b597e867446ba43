"""Claims of losa.extract.csvset."""

from __future__ import annotations

from pathlib import Path

import pytest

from losa.errors import InputError
from losa.extract.csvset import list_csv, read_csv
from losa.extract.samples import arranged
from losa.features import Sample


def test_csv_lines_are_read_with_quotes_crlf_bom_and_blank_lines(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_bytes(
        b'\xef\xbb\xbfpath,label,split\r\n"a,b.jpg",cat,train\r\n\r\nc.jpg, dog ,validation\r\n'
    )
    listed = read_csv(file)
    assert [(item.path, item.label, item.split) for item in listed] == [
        ("a,b.jpg", "cat", "train"),
        ("c.jpg", "dog", "val"),
    ]
    assert listed[1].where == "line 4"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "line 1: the header is ''"),
        ("file,label\na,b\n", "line 1: the header is 'file,label'"),
        ("path,label,label\na,b,c\n", "line 1: the header"),
        ("path,class\na.jpg,cat\n", "line 1: the header 'path,class' has no column label"),
        ("path,label,labels\na.jpg,cat,cat\n", "line 1: the header"),
        ("path,labels\na.jpg,cat;cat\n", "line 2: labels 'cat;cat' name a class twice"),
        ("path,labels\na.jpg,cat;-1\n", "line 2: label '-1' is neither"),
        ("path,label\n", "lists no samples"),
        ("path,label\na.jpg,cat\nb.jpg,cat,extra\n", "line 3 has 3 fields, the header has 2"),
        ("path,label\na.jpg\n", "line 2 has 1 fields"),
        ("path,label\na.jpg,\n", "line 2: label '' is no class"),
        ("path,label\na.jpg,-1\n", "line 2: label '-1' is neither"),
        ("path,label\na.jpg,1.5\n", "line 2: label '1.5' is neither"),
        (f"path,label\na.jpg,{'9' * 5000}\n", "line 2: label '9+' has more than 18 digits"),
        ("path,label\na.jpg,nan\n", "line 2: label 'nan' is neither"),
        ('path,label\n"a\nb.jpg",cat\n', "line 3: path 'a\\\\nb.jpg' holds a control"),
        ('path,label\n"a.jpg,cat\n', "line 2: unexpected end of data"),
        ("path,label,split\na.jpg,cat,\n", "line 2: '' cannot name a split"),
    ],
)
def test_a_wrong_csv_line_is_named(tmp_path: Path, text: str, what: str) -> None:
    file = tmp_path / "list.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=what) as caught:
        read_csv(file)
    assert str(caught.value).startswith(str(file))


def test_a_csv_that_is_not_utf8_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_bytes("path,label\na.jpg,cat\né.jpg,cat\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"byte 21 \(line 3\) is not UTF-8"):
        read_csv(file)


def test_several_labels_are_ascending_numbers_of_all_sorted_names(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text("path,labels,split\na.jpg,sea; boat,train\nb.jpg,,train\nc.jpg,bay,val\n")
    dataset = arranged(list_csv(file), 0)
    assert dataset.classes == ("bay", "boat", "sea")
    assert dataset.splits == {
        "train": (Sample("a.jpg", "a.jpg", -1, (1, 2)), Sample("b.jpg", "b.jpg", -1, ())),
        "val": (Sample("c.jpg", "c.jpg", -1, (0,)),),
    }


def test_numbers_in_the_column_labels_are_ordered_as_numbers(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,labels\na.jpg,10;9\nb.jpg,9\n")
    dataset = arranged(list_csv(tmp_path / "list.csv"), 0)
    assert dataset.classes == ("9", "10")
    assert dataset.splits["train"][0].labels == (0, 1)


def test_paths_alone_have_no_classes_and_are_all_train(tmp_path: Path) -> None:
    lines = "".join(f"{number}.jpg\n" for number in range(10))
    (tmp_path / "list.csv").write_text("path\n" + lines)
    dataset = arranged(list_csv(tmp_path / "list.csv"), 0)
    assert dataset.classes == ()
    assert list(dataset.splits) == ["train"]
    assert {(sample.label, sample.labels) for sample in dataset.splits["train"]} == {(-1, None)}


def test_paths_without_labels_keep_their_splits(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,split\na.jpg,val\nb.jpg,train\n")
    assert list(arranged(list_csv(tmp_path / "list.csv"), 0).splits) == ["train", "val"]
