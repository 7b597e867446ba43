from __future__ import annotations

from pathlib import Path

import pytest

from losa.errors import InputError
from losa.extract.clips.epic import list_epic
from losa.extract.datasets import load_dataset
from losa.extract.media import Span
from tests.extract.picture_folder import touch

HEADER = (
    "narration_id,participant_id,video_id,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "verb,verb_class,noun,noun_class\n"
)
TRAIN = (
    HEADER
    + "P01_01_0,P01,P01_01,00:00:00.14,00:00:03.37,8,202,open,3,door,8\n"
    + 'P01_01_1,P01,P01_01,01:00:04.37,01:00:06.17,262,370,"turn-on",6,light,113\n'
)
VAL = HEADER + "P02_03_7,P02,P02_03,00:01:00.00,00:01:01.50,3600,3690,close,3,door,8\n"


def release(root: Path, train: str = TRAIN) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "EPIC_100_train.csv").write_text(train)
    (root / "EPIC_100_validation.csv").write_text(VAL)
    (root / "EPIC_100_verb_classes.csv").write_text("id,key\n3,open\n6,turn-on\n")
    return touch(root, "P01/videos/P01_01.MP4")


def test_an_action_is_a_part_of_its_video(tmp_path: Path) -> None:
    root = release(tmp_path / "epic")

    dataset = load_dataset("epic", tmp_path, is_clips=True)

    first, second = (dataset.media(sample) for sample in dataset.splits["train"])
    assert first.path == second.path == root / "P01/videos/P01_01.MP4"
    assert first.span == Span(0.14, 3.37)
    assert second.span == Span(3604.37, 3606.17)
    assert [item.key for item in dataset.splits["val"]] == ["P02_03_7"]


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("epic", ("open 8", "turn-on 113")),
        ("epic:verb", ("open", "turn-on")),
        ("epic:noun", ("8", "113")),
    ],
)
def test_labels_are_verbs_nouns_or_both(
    text: str, classes: tuple[str, ...], tmp_path: Path
) -> None:
    release(tmp_path / "epic")

    dataset = load_dataset(text, tmp_path, is_clips=True)

    assert dataset.classes == classes
    assert [item.label for item in dataset.splits["train"]] == [0, 1]
    assert dataset.name == text


def test_frames_count_where_there_are_no_times(tmp_path: Path) -> None:
    train = "narration_id,participant_id,video_id,start_frame,stop_frame,verb_class,noun_class\n"
    release(tmp_path, train + "P01_01_0,P01,P01_01,8,202,3,8\n")

    listing = list_epic(tmp_path, "verb")

    assert listing.pieces[listing.lines[0].path].span == Span(7.0, 202.0, "frames")


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("00:00:03.37", "00:00:00.10", "line 2: ends at 0.1, and begins at 0.14 seconds"),
        ("00:00:03.37", "3.37", "line 2: '3.37' is no time"),
        ("00:00:03.37", "00:00:nan", "line 2: a time is 'nan'"),
        ("P01_01_0,", "../x,", "line 2: path '../x' does not name a file"),
        ("video_id", "video", "line 1: has no column 'video_id'"),
    ],
)
def test_a_damaged_annotation_names_its_line(old: str, new: str, what: str, tmp_path: Path) -> None:
    release(tmp_path, TRAIN.replace(old, new, 1))

    with pytest.raises(InputError, match=what):
        list_epic(tmp_path, "")
