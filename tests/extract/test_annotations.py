from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from losa.errors import InputError
from losa.extract.annotations import (
    category_names,
    path_kind,
    read_coco,
    read_json,
    safe_path,
    safe_split,
)

HOSTILE = [
    "",
    ".",
    "/etc/passwd",
    "../../etc/passwd",
    "a/../../b.jpg",
    "C:\\x.jpg",
    "C:x.jpg",
    "a\\b.jpg",
    "a\0b.jpg",
    "a\nb.jpg",
    "a\x1b[31m.jpg",
    "http://x.test/a.jpg",
    "concat:a|b",
    "-i",
    "x" * 256,
    "\udcff.jpg",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_path_that_could_lead_elsewhere_is_refused(text: str) -> None:
    with pytest.raises(
        InputError, match=r"list.csv: line 3: path .*; list paths such as"
    ) as caught:
        safe_path(text, Path("list.csv"), "line 3")
    assert "\n" not in str(caught.value)
    assert "\0" not in str(caught.value)


@pytest.mark.parametrize("text", ["a.jpg", "a b/'c\".jpg", "é/猫.jpg", "a..b/c.jpg", "y" * 255])
def test_an_honest_path_is_kept_as_it_is(text: str) -> None:
    assert safe_path(text, Path("list.csv"), "line 3") == text


def test_the_same_file_written_in_two_ways_has_one_path() -> None:
    assert safe_path("./a//b/./c.jpg", Path("f"), "line 1") == "a/b/c.jpg"


@pytest.mark.parametrize("text", ["", "../x", "a/b", "a b", ".losa", "x" * 65])
def test_a_split_must_be_fit_to_name_a_group(text: str) -> None:
    with pytest.raises(InputError, match="cannot name a split"):
        safe_split(text, Path("list.csv"), "line 2")


def coco(**changes: Any) -> dict[str, Any]:
    """A listing of two images, with members replaced."""
    listing = {
        "images": [{"id": 5, "file_name": "a/5.jpg"}, {"id": 6, "file_name": "a/6.jpg"}],
        "annotations": [
            {"id": 0, "image_id": 6, "category_id": 9},
            {"id": 1, "image_id": 5, "category_id": 2},
        ],
        "categories": [{"id": 9, "name": "owl"}, {"id": 2, "name": "oak"}],
    }
    return {**listing, **changes}


def test_coco_images_keep_their_order_and_find_their_category(tmp_path: Path) -> None:
    file = tmp_path / "train.json"
    file.write_text(json.dumps(coco()))
    listing = read_coco(file)
    assert listing.images == (("a/5.jpg", 2), ("a/6.jpg", 9))
    assert list(listing.categories.items()) == [(2, "oak"), (9, "owl")]


def test_unknown_places_written_as_nan_do_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "train.json"
    images = [{"id": 5, "file_name": "5.jpg", "latitude": float("nan")}]
    notes = [{"id": 1, "image_id": 5, "category_id": 2}]
    file.write_text(json.dumps(coco(images=images, annotations=notes)))
    assert "NaN" in file.read_text()
    assert read_coco(file).images == (("5.jpg", 2),)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"images": [{"id": 5, "file_name": "../5.jpg"}]}, r"images\[0\]: path '../5.jpg'"),
        ({"images": [{"id": 5, "file_name": 5}]}, r"images\[0\]: file_name is no text"),
        (
            {"images": [{"id": 4, "file_name": "4.jpg"}]},
            r"images\[0\]: image 4 stands twice or has",
        ),
        ({"images": [{"id": 5, "file_name": "5.jpg"}]}, "annotations name image 6"),
        ({"images": [{"id": 5, "file_name": "5.jpg"}] * 2}, r"images\[1\]: image 5 stands twice"),
        ({"images": {}}, "images is not a list of objects"),
        ({"images": [], "annotations": []}, "lists no images"),
        ({"annotations": [{"image_id": 5, "category_id": 3}]}, "category 3 is not listed"),
        ({"annotations": [{"image_id": 5, "category_id": "2"}]}, "category_id is '2', not a whole"),
        ({"annotations": [{"image_id": 5, "category_id": -1}]}, "category_id is -1"),
        ({"annotations": [{"image_id": 5, "category_id": 1.5}]}, "category_id is 1.5"),
        ({"annotations": [{"image_id": 5, "category_id": True}]}, "category_id is True"),
        ({"annotations": [{"image_id": 5, "category_id": 2}] * 2}, "image 5 has two annotations"),
        ({"categories": [{"id": 2, "name": "a"}] * 2}, r"categories\[1\]: id 2 stands twice"),
    ],
)
def test_a_wrong_coco_entry_is_named(tmp_path: Path, changes: dict[str, Any], what: str) -> None:
    file = tmp_path / "train.json"
    file.write_text(json.dumps(coco(**changes)))
    with pytest.raises(InputError, match=what) as caught:
        read_coco(file)
    assert str(caught.value).startswith(str(file))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "byte 0: Expecting value"),
        (b'{"images": [', "byte 12: Expecting value"),
        ('{"é": '.encode(), "byte 7: Expecting value"),
        (b"\xef\xbb\xbf{}", "byte 0: Unexpected UTF-8 BOM"),
        ("{}".encode("utf-16"), r"byte 0 \(line 1\) is not UTF-8"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"id": 1, "id": 2}', "member 'id' stands twice"),
    ],
)
def test_a_damaged_json_file_names_the_byte(tmp_path: Path, data: bytes, what: str) -> None:
    file = tmp_path / "train.json"
    file.write_bytes(data)
    with pytest.raises(InputError, match=what):
        read_json(file)


def test_a_list_instead_of_an_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text("[]")
    with pytest.raises(InputError, match="is not an object with images"):
        read_coco(tmp_path / "train.json")


def test_a_listing_that_is_missing_or_huge_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is missing"):
        read_json(tmp_path / "train.json")
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(2_000_000_001)
    with pytest.raises(InputError, match="is larger than"):
        read_json(tmp_path / "huge.json")


def test_categories_that_share_a_name_are_told_apart_by_their_id() -> None:
    value = [{"id": 3, "name": "rose"}, {"id": 1, "name": "rose"}, {"id": 2, "name": "oak"}]
    names = category_names(value, Path("categories.json"))
    assert names == {1: "rose [1]", 2: "oak", 3: "rose [3]"}


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "\ud800", "loop"])
def test_a_path_that_the_system_refuses_is_an_input_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match="cannot be looked at") as caught:
        path_kind(tmp_path / name)
    assert str(caught.value).isprintable()


def test_a_path_is_a_file_a_folder_something_else_or_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    kinds = [path_kind(tmp_path / name) for name in ("", "file", "pipe", "none", "file/below")]
    assert kinds == ["folder", "file", "other", None, None]
