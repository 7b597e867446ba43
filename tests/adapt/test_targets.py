"""Files of targets: what they may say, and what is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from losa.adapt.targets import Targets, read_targets
from losa.errors import InputError


def read(tmp_path: Path, text: str) -> Targets:
    file = tmp_path / "targets.csv"
    file.write_bytes(text.encode("utf-8"))
    return read_targets(file)


def test_one_class_a_line(tmp_path: Path) -> None:
    found = read(tmp_path, 'key,label\na.png,owl\n\n"b,c.png", jay \n')
    assert (found.kind, found.names) == ("classes", ("jay", "owl"))
    assert dict(found.of_key) == {"a.png": ("owl",), "b,c.png": ("jay",)}


def test_whole_numbers_are_classes_in_the_order_of_numbers(tmp_path: Path) -> None:
    assert read(tmp_path, "key,label\na,10\nb,9\n").names == ("9", "10")


def test_any_number_of_labels_a_line(tmp_path: Path) -> None:
    found = read(tmp_path, "\ufeffkey,labels\na,red;big\nb,\nc, big ;\n")
    assert (found.kind, found.names) == ("labels", ("big", "red"))
    assert dict(found.of_key) == {"a": ("big", "red"), "b": (), "c": ("big",)}


def test_numbers_in_named_columns(tmp_path: Path) -> None:
    found = read(tmp_path, "key,age,height\na,3,-1.5e2\nb,0.25,7\n")
    assert (found.kind, found.names) == ("numbers", ("age", "height"))
    assert dict(found.of_key) == {"a": (3.0, -150.0), "b": (0.25, 7.0)}


def test_the_order_of_lines_is_no_part_of_the_identity_and_all_else_is(tmp_path: Path) -> None:
    first = read(tmp_path, "key,age\na,1\nb,2\n").digest
    assert read(tmp_path, "key,age\nb,2.0\na,1\n").digest == first
    others = ["key,age\na,1\nb,3\n", "key,size\na,1\nb,2\n", "key,label\na,1\nb,2\n",
              "key,age\na,1\nc,2\n"]  # fmt: skip
    assert len({first, *(read(tmp_path, text).digest for text in others)}) == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "header is ''"),
        ("key\na\n", "header is 'key'"),
        ("path,label\na,b\n", "header is 'path,label'"),
        ("key,age,age\na,1,2\n", "header is 'key,age,age'"),
        ("key,label,age\na,b,1\n", "column 'label'"),
        ("key,label\n", "names no samples"),
        ("key,label\na,b,c\n", "line 2 has 3 fields"),
        ("key,label\na,b\na,c\n", "line 3: key 'a' stands twice"),
        ("key,label\na,\n", "line 2: label '' is no class"),
        ("key,label\na,b\x07\n", "is no class"),
        ("key,labels\na,b;b\n", "line 2: 'b;b' names a class twice"),
        ("key,age\na,\n", "line 2: age is '', no finite number"),
        ("key,class\na,owl\n", "class is 'owl', no finite number"),
        ("key,age\na,nan\n", "age is 'nan'"),
        ("key,age\na,1e200\n", "age is '1e200'"),
        ('key,label\na,"b\n', "line 2"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=r"targets\.csv") as refused:
        read(tmp_path, text)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_targets(tmp_path / "none.csv")
    (tmp_path / "odd.csv").write_bytes(b"key,label\n\xff,a\n")
    with pytest.raises(InputError, match="is not UTF-8"):
        read_targets(tmp_path / "odd.csv")
