from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from losa.errors import InputError
from losa.extract.clips.placing import TRIED, ending_of, used_pattern
from tests.extract.picture_folder import touch


@dataclass(frozen=True)
class Line:
    name: str
    split: str = "train"


def lines(*names: str, split: str = "train") -> list[Line]:
    return [Line(name, split) for name in names]


def flat(line: Line) -> str:
    return f"{line.name}.mp4"


def foldered(line: Line) -> str:
    return f"{line.name[0]}/{line.name}.mp4"


def in_split(line: Line) -> str:
    return f"{line.split}/{line.name}.mp4"


def test_the_pattern_by_which_most_files_are_here_is_used(tmp_path: Path) -> None:
    touch(tmp_path, "a1.mp4", "a/a1.mp4", "b/b1.mp4")

    assert used_pattern(tmp_path, lines("a1", "b1", "c1"), [flat, foldered])(Line("c1")) == (
        "c/c1.mp4"
    )


def test_of_patterns_with_as_many_files_the_first_is_used(tmp_path: Path) -> None:
    touch(tmp_path, "a1.mp4", "b/b1.mp4")

    assert used_pattern(tmp_path, lines("a1", "b1"), [flat, foldered])(Line("c1")) == "c1.mp4"


def test_every_split_has_the_pattern_of_its_own_files(tmp_path: Path) -> None:
    touch(tmp_path, "train/t1.mp4", "train/t2.mp4", "v/v1.mp4")
    listed = lines("t1", "t2", "t3") + lines("v1", "v2", split="val")

    pattern = used_pattern(tmp_path, listed, [flat, foldered, in_split])

    assert [pattern(line) for line in listed] == [
        *("train/t1.mp4", "train/t2.mp4", "train/t3.mp4"),
        *("v/v1.mp4", "v/v2.mp4"),
    ]


def test_a_split_without_files_is_named_as_most_files_of_the_others(tmp_path: Path) -> None:
    touch(tmp_path, "train/t1.mp4", "train/t2.mp4", "v/v1.mp4")
    listed = lines("t1", "t2") + lines("v1", split="val") + lines("s1", split="test")

    assert used_pattern(tmp_path, listed, [flat, foldered, in_split])(listed[-1]) == "test/s1.mp4"


@pytest.mark.parametrize("place", [0, 1, TRIED, 10 * TRIED - 2])
def test_a_single_file_of_a_long_listing_is_found_wherever_it_is_listed(
    tmp_path: Path, place: int
) -> None:
    listed = lines(*(f"a{number}" for number in range(10 * TRIED)))
    touch(tmp_path, flat(listed[place]))

    assert used_pattern(tmp_path, listed, [foldered, flat])(Line("b")) == "b.mp4"


def test_a_folder_with_the_name_of_a_video_is_none(tmp_path: Path) -> None:
    touch(tmp_path, "a1.mp4/x", "a/a1.mp4")

    assert used_pattern(tmp_path, lines("a1"), [flat, foldered])(Line("a1")) == "a/a1.mp4"


def test_a_listing_of_which_nothing_is_here_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "z.mp4")
    listed = lines("a1", "a" * 300, "b\0")

    with pytest.raises(InputError, match=r"holds none of 3 listed videos.*such as a1.mp4 or a/a1"):
        used_pattern(tmp_path, listed, [flat, foldered])


def test_a_listing_without_lines_is_for_others_to_refuse(tmp_path: Path) -> None:
    assert used_pattern(tmp_path, [], [flat, foldered]) is flat


def test_ways_whose_folders_are_not_here_are_given_up_after_some_lines(tmp_path: Path) -> None:
    touch(tmp_path, "other.mp4", "a/other.txt")
    listed = lines(*(f"a{number}" for number in range(4 * TRIED)))
    asked: list[str] = []

    def counted(line: Line) -> str:
        asked.append(line.name)
        return foldered(line)

    with pytest.raises(InputError, match=f"none of {4 * TRIED}"):
        used_pattern(tmp_path, listed, [flat, counted])
    # Some lines for their files, all for their folders, and one for the message.
    assert len(asked) == TRIED + 4 * TRIED + 1


def test_a_way_is_kept_while_any_of_its_folders_is_here(tmp_path: Path) -> None:
    listed = [Line(f"{number:04d}") for number in range(10 * TRIED)]

    def one_each(line: Line) -> str:
        return f"class{line.name}/{line.name}.mp4"

    touch(tmp_path, one_each(listed[3]))
    assert used_pattern(tmp_path, listed, [flat, one_each])(listed[0]) == one_each(listed[0])


@pytest.mark.parametrize(
    ("path", "ending"), [("a/b.mp4", ".mp4"), ("b.tar.mkv", ".mkv"), ("a.b/c.d/e.webm", ".webm")]
)
def test_an_ending_is_that_of_the_file_not_of_a_folder(path: str, ending: str) -> None:
    assert ending_of(path) == ending
