from __future__ import annotations

from pathlib import Path

import pytest

from losa.errors import InputError
from losa.extract.clips.tables import first_file, list_lines, number_of, table_rows
from tests.extract.picture_folder import touch


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "list.csv"


def test_a_table_gives_its_fields_by_name_and_where_they_stand(file: Path) -> None:
    file.write_text('\ufeffid, label\n1,"a, b"\n\n2, c \n', encoding="utf-8")

    assert list(table_rows(file, ("id", "label"))) == [
        ("line 2", {"id": "1", "label": "a, b"}),
        ("line 4", {"id": "2", "label": "c"}),
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "line 1: has no column 'id'"),
        ("label\nx\n", "line 1: has no column 'id'"),
        ("id,label\n1\n", "line 2 has 1 fields, the header has 2"),
        ('id,label\n1,"x\n', "line 2: unexpected end of data"),
    ],
)
def test_a_damaged_table_names_its_line(text: str, what: str, file: Path) -> None:
    file.write_text(text)

    with pytest.raises(InputError, match=what):
        list(table_rows(file, ("id",)))


def test_lines_of_a_list_are_counted_with_the_empty_ones(file: Path) -> None:
    file.write_text("a 1\r\n\r\n  b 2\n")

    assert list(list_lines(file)) == [("line 1", "a 1"), ("line 3", "b 2")]


def test_the_first_file_that_is_there_is_taken(tmp_path: Path) -> None:
    touch(tmp_path, "b.csv", "c.csv", "a.csv/not.txt")

    assert first_file(tmp_path, ["a.csv", "b.csv", "c.csv"]) == tmp_path / "b.csv"
    assert first_file(tmp_path, ["a.csv"]) is None


@pytest.mark.parametrize("text", ["", "one", "-1", "nan", "inf", "1e300"])
def test_what_is_no_number_of_seconds_or_frames_is_refused(text: str, file: Path) -> None:
    with pytest.raises(InputError, match="line 3: time_start is"):
        number_of(text, file, "line 3", "time_start")
    assert number_of("2.5", file, "line 3", "time_start") == 2.5
