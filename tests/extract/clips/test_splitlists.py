from __future__ import annotations

from pathlib import Path

import pytest

from losa.errors import InputError
from losa.extract.clips.splitlists import list_hmdb51, list_ucf101
from losa.extract.datasets import load_dataset
from tests.extract.picture_folder import touch


def ucf(root: Path) -> Path:
    folder = root / "ucf101" / "ucfTrainTestlist"
    folder.mkdir(parents=True)
    (folder / "classInd.txt").write_text("1 Yawning\r\n2 Archery\r\n")
    (folder / "trainlist01.txt").write_text("Archery/v_1.avi 2\r\nYawning/v_2.avi 1\r\n")
    (folder / "testlist01.txt").write_text("Archery/v_3.avi\r\n")
    (folder / "trainlist02.txt").write_text("Archery/v_3.avi 2\n")
    (folder / "testlist02.txt").write_text("Archery/v_1.avi\n")
    touch(root / "ucf101", "UCF-101/Archery/v_1.avi")
    return root


def hmdb(root: Path) -> Path:
    folder = root / "hmdb51" / "testTrainMulti_7030_splits"
    folder.mkdir(parents=True)
    (folder / "brush_hair_test_split1.txt").write_text("a #1.avi 1 \nb.avi 2 \nc.avi 0 \n")
    (folder / "wave_test_split1.txt").write_text("d.avi 1 \n")
    (folder / "wave_test_split2.txt").write_text("d.avi 2 \n")
    (folder / "brush_hair_test_split2.txt").write_text("b.avi 1 \n")
    touch(root / "hmdb51", "hmdb51_org/wave/d.avi")
    return root


def found(name: str, root: Path) -> dict[str, list[tuple[str, int]]]:
    dataset = load_dataset(name, root, is_clips=True)
    return {
        split: [(item.path, item.label) for item in listed]
        for split, listed in dataset.splits.items()
    }


def test_ucf101_is_parted_by_its_lists_and_numbered_by_its_classes(tmp_path: Path) -> None:
    root = ucf(tmp_path)

    assert found("ucf101", root) == {
        "train": [("UCF-101/Archery/v_1.avi", 1), ("UCF-101/Yawning/v_2.avi", 0)],
        "test": [("UCF-101/Archery/v_3.avi", 1)],
    }
    assert found("ucf101:2", root)["train"] == [("UCF-101/Archery/v_3.avi", 1)]


def test_hmdb51_is_parted_by_the_numbers_behind_its_clips(tmp_path: Path) -> None:
    root = hmdb(tmp_path)

    assert found("hmdb51", root) == {
        "train": [("hmdb51_org/brush_hair/a #1.avi", 0), ("hmdb51_org/wave/d.avi", 1)],
        "test": [("hmdb51_org/brush_hair/b.avi", 0)],
    }
    assert found("hmdb51:2", root)["test"] == [("hmdb51_org/wave/d.avi", 1)]


def test_a_damaged_list_names_its_line(tmp_path: Path) -> None:
    lists = ucf(tmp_path) / "ucf101" / "ucfTrainTestlist"
    (lists / "testlist01.txt").write_text("Archery/v_3.avi\nDancing/v_4.avi\n")
    with pytest.raises(InputError, match=r"testlist01.txt: line 2: 'Dancing' is no class"):
        list_ucf101(tmp_path / "ucf101", "")

    splits = hmdb(tmp_path) / "hmdb51" / "testTrainMulti_7030_splits"
    (splits / "wave_test_split1.txt").write_text("d.avi 7\n")
    with pytest.raises(InputError, match=r"wave_test_split1.txt: line 1: ends with '7'"):
        list_hmdb51(tmp_path / "hmdb51", "1")
