from __future__ import annotations

from pathlib import Path

import pytest

from losa.errors import InputError, UsageError
from losa.extract.clips.sets import SETS
from losa.extract.datasets import known_datasets, load_dataset
from tests.extract.picture_folder import touch


def test_every_set_of_clips_is_a_known_data_set() -> None:
    assert set(SETS) <= {known.name for known in known_datasets()}


@pytest.mark.parametrize("name", sorted(SETS))
def test_a_set_that_is_not_there_says_where_to_put_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{SETS[name].folders[0]}: is missing; put it there"):
        load_dataset(name, tmp_path, is_clips=True)


@pytest.mark.parametrize("name", sorted(SETS))
def test_an_empty_folder_says_what_belongs_there(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()

    with pytest.raises(InputError, match="is missing"):
        load_dataset(name, tmp_path, is_clips=True)


@pytest.mark.parametrize("text", ["k400:x", "k600:2", "ssv2:2", "ucf101:4", "hmdb51:0", "epic:x"])
def test_a_form_that_a_set_has_not_is_a_mistake(text: str, tmp_path: Path) -> None:
    touch(tmp_path, f"{text.partition(':')[0]}/readme.txt")

    with pytest.raises(UsageError, match=r"^--dataset"):
        load_dataset(text, tmp_path, is_clips=True)


@pytest.mark.parametrize("text", ["wds:train.tar", "hf:name", "vtab/caltech101", "inat2018"])
def test_what_holds_images_is_no_data_set_of_clips(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no data set of clips; use folder:PATH, csv:FILE"):
        load_dataset(text, tmp_path, is_clips=True)


def test_a_folder_of_clips_is_listed_as_one_of_images_is(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.mp4", "train/b/2.webm", "val/a/3.avi", "val/b/x.jpg")

    dataset = load_dataset(f"folder:{tmp_path}", tmp_path, is_clips=True)

    found = {split: [item.path for item in listed] for split, listed in dataset.splits.items()}
    assert found == {"train": ["train/a/1.mp4", "train/b/2.webm"], "val": ["val/a/3.avi"]}
    assert dataset.classes == ("a", "b")


def test_a_folder_without_clips_says_so(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg")

    with pytest.raises(InputError, match="holds no folders with clips; lay it out as class/clip"):
        load_dataset(f"folder:{tmp_path}", tmp_path, is_clips=True)


def test_a_csv_file_lists_clips_as_it_lists_images(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,label,split\na.mp4,x,train\nb.mp4,y,train\n")

    for text in (f"csv:{tmp_path / 'list.csv'}", str(tmp_path / "list.csv")):
        dataset = load_dataset(text, tmp_path, is_clips=True)
        assert [item.path for item in dataset.splits["train"]] == ["a.mp4", "b.mp4"]
