from __future__ import annotations

from pathlib import Path

import pytest

from losa.errors import InputError
from losa.extract.clips.placing import TRIED, used_pattern
from tests.extract.picture_folder import touch


def flat(name: str) -> str:
    return f"{name}.mp4"


def foldered(name: str) -> str:
    return f"{name[0]}/{name}.mp4"


def test_the_pattern_by_which_most_files_are_here_is_used(tmp_path: Path) -> None:
    touch(tmp_path, "a1.mp4", "a/a1.mp4", "b/b1.mp4")

    assert used_pattern(tmp_path, ["a1", "b1", "c1"], [flat, foldered]) is foldered


def test_of_patterns_with_as_many_files_the_first_is_used(tmp_path: Path) -> None:
    touch(tmp_path, "a1.mp4", "b/b1.mp4")

    assert used_pattern(tmp_path, ["a1", "b1"], [flat, foldered]) is flat


def test_files_are_looked_for_all_over_a_long_listing(tmp_path: Path) -> None:
    names = [f"a{number}" for number in range(10 * TRIED)]
    touch(tmp_path, *(flat(name) for name in names[-20:]))

    assert used_pattern(tmp_path, names, [foldered, flat]) is flat


def test_a_listing_of_which_nothing_is_here_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "z.mp4")
    long_name = "a" * 300

    with pytest.raises(InputError, match=r"holds none of 2 listed videos.*such as a1.mp4 or a/a1"):
        used_pattern(tmp_path, ["a1", long_name], [flat, foldered])
