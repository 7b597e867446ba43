from __future__ import annotations

from pathlib import Path

import pytest

from losa.errors import InputError
from losa.extract.clips.kinetics import list_kinetics
from losa.extract.datasets import load_dataset
from tests.extract.picture_folder import touch

TRAIN = """label,youtube_id,time_start,time_end,split
playing chess,AAAAAAAAAAA,1,11,train
riding a bike,BBBBBBBBBBB,20,30,train
riding a bike,CCCCCCCCCCC,3,13,train
"""
VAL = """label,youtube_id,time_start,time_end,split
playing chess,DDDDDDDDDDD,100,110,validate
"""
STEMS = ("AAAAAAAAAAA_000001_000011", "BBBBBBBBBBB_000020_000030", "CCCCCCCCCCC_000003_000013")
VAL_STEM = "DDDDDDDDDDD_000100_000110"


def annotated(root: Path, folder: str = "annotations") -> Path:
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / "train.csv").write_text(TRAIN)
    (root / folder / "val.csv").write_text(VAL)
    return root


def paths_of(root: Path) -> list[str]:
    return [item.path for item in list_kinetics(root).lines]


@pytest.mark.parametrize(
    "layout",
    [
        "{split}/{label}/{stem}.mp4",
        "{split}/{plain}/{stem}.mp4",
        "{split}/{stem}.mp4",
        "{label}/{stem}.mkv",
        "{stem}.mp4",
        "videos/{split}/{stem}.webm",
    ],
)
def test_clips_are_found_however_they_are_laid_out(layout: str, tmp_path: Path) -> None:
    labels = ("playing chess", "riding a bike", "riding a bike")
    wanted = [
        layout.format(split="train", label=label, plain=label.replace(" ", "_"), stem=stem)
        for label, stem in zip(labels, STEMS, strict=True)
    ]
    wanted.append(
        layout.format(split="val", label="playing chess", plain="playing_chess", stem=VAL_STEM)
    )
    touch(annotated(tmp_path), *wanted)

    assert paths_of(tmp_path) == wanted


def test_what_is_listed_does_not_depend_on_which_videos_are_here(tmp_path: Path) -> None:
    folder = touch(annotated(tmp_path / "k400"), f"train/{STEMS[1]}.mp4", f"val/{VAL_STEM}.mp4")
    some = load_dataset("k400", tmp_path, is_clips=True)
    touch(folder, f"train/{STEMS[0]}.mp4")
    (folder / f"train/{STEMS[1]}.mp4").unlink()

    assert load_dataset("k400", tmp_path, is_clips=True) == some
    assert [item.key for item in some.splits["train"]] == list(STEMS)
    assert some.classes == ("playing chess", "riding a bike")
    assert {split: len(listed) for split, listed in some.splits.items()} == {"train": 3, "val": 1}


def test_annotations_may_lie_in_the_folder_itself_and_test_may_have_no_labels(
    tmp_path: Path,
) -> None:
    annotated(tmp_path, ".")
    (tmp_path / "test.csv").write_text("youtube_id,time_start,time_end,split\nEEE,0,10,test\n")
    touch(tmp_path, "test/EEE_000000_000010.mp4")

    lines = list_kinetics(tmp_path).lines

    assert [(item.split, item.label) for item in lines][-2:] == [
        ("val", "playing chess"),
        ("test", None),
    ]


@pytest.mark.parametrize(
    "text", ["chess/a b.mp4 0\nbike/c.mp4 1\n", "chess/a b.mp4,0\nbike/c.mp4,1\n"]
)
def test_a_list_of_paths_and_numbers_is_read_as_it_stands(text: str, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text(text)

    lines = list_kinetics(tmp_path).lines

    assert [(item.path, item.label) for item in lines] == [
        ("chess/a b.mp4", "0"),
        ("bike/c.mp4", "1"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("train.csv", TRAIN.replace(",1,11", ",one,11"), "line 2: time_start is 'one'"),
        ("train.csv", TRAIN.replace("AAAAAAAAAAA", "../../A"), "does not name a file below"),
        ("train.csv", TRAIN + "x,y\n", "line 5 has 2 fields, the header has 5"),
        ("train.txt", "a.mp4 chess\n", "line 1: 'a.mp4 chess' is no path with the number"),
        ("train.txt", "/data/a.mp4 1\n", "is not a relative POSIX path"),
    ],
)
def test_a_damaged_annotation_names_its_line(
    name: str, text: str, what: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    touch(tmp_path, f"train/{STEMS[1]}.mp4")

    with pytest.raises(InputError, match=what):
        list_kinetics(tmp_path)


def test_without_a_single_video_the_mistake_names_where_they_belong(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"holds none of 4 listed videos.*train/playing chess/AAAA"
    ):
        list_kinetics(annotated(tmp_path))
