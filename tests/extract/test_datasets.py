from __future__ import annotations

import errno
import os
from collections import Counter
from pathlib import Path

import pytest

from losa.errors import InputError, UsageError
from losa.extract.datasets import known_datasets, load_dataset, stratified_split
from losa.features import Sample
from tests.extract.inat_fixture import write_inat2018
from tests.extract.picture_folder import touch


def test_split_class_file_gives_the_folders_as_splits_and_classes(tmp_path: Path) -> None:
    touch(tmp_path, "train/owl/b.jpg", "train/owl/a.PNG", "train/bat/c.jpeg", "train/owl/.x.jpg")
    touch(tmp_path, "valid/owl/d.webp", "test/ant/deep/er/e.tif", "train/owl/notes.txt", "README")
    dataset = load_dataset(f"folder:{tmp_path}", Path("data"))
    assert dataset.classes == ("ant", "bat", "owl")
    assert dataset.name == f"folder:{tmp_path.name}"
    assert dataset.root == tmp_path
    assert dataset.splits == {
        "train": (
            Sample("train/bat/c.jpeg", "train/bat/c.jpeg", 1),
            Sample("train/owl/a.PNG", "train/owl/a.PNG", 2),
            Sample("train/owl/b.jpg", "train/owl/b.jpg", 2),
        ),
        "val": (Sample("valid/owl/d.webp", "valid/owl/d.webp", 2),),
        "test": (Sample("test/ant/deep/er/e.tif", "test/ant/deep/er/e.tif", 0),),
    }
    assert list(dataset.splits) == ["train", "val", "test"]


def test_class_file_is_split_80_to_20_in_every_class_by_seed(tmp_path: Path) -> None:
    touch(tmp_path, *[f"{name}/{n}.jpg" for name in ("10", "9", "train") for n in range(10)])
    dataset = load_dataset(str(tmp_path), Path("data"), seed=3)
    assert dataset.classes == ("10", "9", "train")
    assert Counter(sample.label for sample in dataset.splits["train"]) == {0: 8, 1: 8, 2: 8}
    assert Counter(sample.label for sample in dataset.splits["val"]) == {0: 2, 1: 2, 2: 2}
    assert load_dataset(str(tmp_path), Path("data"), seed=3) == dataset
    assert load_dataset(str(tmp_path), Path("data"), seed=4).splits != dataset.splits


def test_the_split_does_not_depend_on_the_order_of_the_directory() -> None:
    samples = [Sample(f"{n}.jpg", f"{n}.jpg", n % 3) for n in range(40)]
    train, val = stratified_split(samples, 0)
    back_train, back_val = stratified_split(samples[::-1], 0)
    assert set(train) == set(back_train)
    assert set(val) == set(back_val)
    assert set(train) | set(val) == set(samples)
    assert train == tuple(sample for sample in samples if sample in train)


def test_a_handful_of_images_is_all_train(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    assert list(load_dataset(str(tmp_path), Path("data")).splits) == ["train"]


@pytest.mark.parametrize(
    ("paths", "what"),
    [
        ([], "holds no folders with images"),
        (["1.jpg", "a/readme.txt"], "holds no folders with images"),
        (["a/1.jpg", "train/b/1.jpg"], r"mixes class/file \(a/1.jpg\) and split/class/file"),
        (["train/a/1.jpg", "test/a/1.txt"], "test: holds no images"),
        (["train/a/1.jpg", "my split/a/1.jpg"], "'my split' cannot name a split"),
        (["a/1.jpg", "A/1.jpg"], "A/1.jpg.* name the same sample"),
        (["a/é.jpg", "a/e\u0301.jpg"], "name the same sample"),
    ],
)
def test_a_folder_unfit_to_train_on_is_refused(tmp_path: Path, paths: list[str], what: str) -> None:
    touch(tmp_path, *paths)
    with pytest.raises(InputError, match=what):
        load_dataset(f"folder:{tmp_path}", Path("data"))


def test_names_may_hold_spaces_quotes_newlines_and_emoji(tmp_path: Path) -> None:
    names = ["train/a b/\"x'\n.jpg", "train/🦉/-y.jpg", f"train/c/{'z' * 251}.jpg"]
    touch(tmp_path, *names)
    dataset = load_dataset(str(tmp_path), Path("data"))
    assert {sample.path for sample in dataset.splits["train"]} == set(names)


def test_a_file_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg")
    (tmp_path / "a" / os.fsdecode(b"\xff.jpg")).touch()
    with pytest.raises(InputError, match=r"'a/\\udcff.jpg' is not UTF-8"):
        load_dataset(str(tmp_path), Path("data"))


def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    elsewhere = touch(tmp_path / "elsewhere", "1.jpg", "2.jpg")
    touch(tmp_path / "set", "train/a/1.jpg")
    (tmp_path / "set/train/b").symlink_to(elsewhere)
    (tmp_path / "set/train/a/loop").symlink_to(tmp_path / "set/train")
    dataset = load_dataset(str(tmp_path / "set"), Path("data"))
    assert [sample.path for sample in dataset.splits["train"]] == [
        "train/a/1.jpg",
        "train/b/1.jpg",
        "train/b/2.jpg",
    ]


def test_csv_names_classes_and_splits(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(
        "path,label,split\nx/2.jpg,owl,val\nx/1.jpg,bat,train\nx/3.jpg,ant,holdout\n"
    )
    dataset = load_dataset(f"csv:{tmp_path / 'list.csv'}", Path("data"))
    assert (dataset.name, dataset.root) == ("csv:list.csv", tmp_path)
    assert dataset.classes == ("ant", "bat", "owl")
    assert list(dataset.splits) == ["train", "val", "holdout"]
    assert dataset.splits["val"] == (Sample("x/2.jpg", "x/2.jpg", 2),)
    assert load_dataset(str(tmp_path / "list.csv"), Path("data")).splits == dataset.splits


def test_csv_numbers_are_ordered_as_numbers(tmp_path: Path) -> None:
    lines = "".join(f"{number}.jpg,{number}\n" for number in (10, 9, 100, 9 + 2))
    (tmp_path / "list.csv").write_text("path,label\n" + lines)
    assert load_dataset(str(tmp_path / "list.csv"), Path("data")).classes == (
        "9",
        "10",
        "11",
        "100",
    )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("path,label\na.jpg,cat\nb.jpg,3\n", "line 3: label '3' is of another kind than 'cat'"),
        ("path,label\na.jpg,1\nb.jpg,01\n", "line 3: label '01' is the number of line 2, '1'"),
        ("path,label\na.jpg,1\nb.jpg,\u0661\n", "line 3: label .* is the number of line 2"),
        ("path,label\na.jpg,cat\n./a.jpg,cat\n", "line 3 and line 2 name the same sample"),
        ("path,label\na.jpg,cat\n../b.jpg,cat\n", "line 3: path '../b.jpg'"),
    ],
)
def test_a_csv_unfit_to_train_on_is_refused(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match=f"list.csv: {what}"):
        load_dataset(f"csv:{tmp_path / 'list.csv'}", Path("data"))


@pytest.mark.parametrize("kind", ["folder", "csv"])
def test_a_path_that_is_missing_is_an_input_error(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputError, match="nowhere: is missing") as caught:
        load_dataset(f"{kind}:{tmp_path / 'nowhere'}", Path("data"))
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("text", "what"),
    [("inat2081", "did you mean inat20"), ("tfds:food101", "see losa datasets"), ("csv:", "see")],
)
def test_an_unknown_name_is_a_usage_error(text: str, what: str) -> None:
    with pytest.raises(UsageError, match=f"--dataset: .*{what}"):
        load_dataset(text, Path("data"))


def test_a_registered_name_is_read_from_the_data_folder(tmp_path: Path) -> None:
    write_inat2018(tmp_path / "inat2018")
    dataset = load_dataset("inat2018", tmp_path)
    assert dataset.name == "inat2018"
    assert {name: len(samples) for name, samples in dataset.splits.items()} == {
        "train": 2,
        "val": 2,
    }


def test_splits_can_be_asked_for_and_labels_stay(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/b/2.jpg")
    dataset = load_dataset(str(tmp_path), Path("data"), splits=("val",))
    assert dataset.splits == {"val": (Sample("val/b/2.jpg", "val/b/2.jpg", 1),)}
    assert dataset.classes == ("a", "b")
    with pytest.raises(UsageError, match=r"--split: .* has no split 'test'; use one of train, val"):
        load_dataset(str(tmp_path), Path("data"), splits=("test",))


def test_every_known_data_set_says_where_to_get_it() -> None:
    for known in known_datasets():
        assert known.layout
        assert known.source


@pytest.mark.parametrize("form", ["{}", "folder:{}", "csv:{}"])
@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_path_that_the_system_refuses_is_an_input_error(
    tmp_path: Path, form: str, name: str
) -> None:
    with pytest.raises(InputError) as caught:
        load_dataset(form.format(tmp_path / name), Path("data"))
    assert str(tmp_path) in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("form", ["{}", "folder:{}", "csv:{}"])
def test_a_path_below_a_locked_folder_is_an_input_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    def locked(path: Path) -> os.stat_result:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "stat", locked)
    with pytest.raises(InputError, match=r"below: .*\(Permission denied\)"):
        load_dataset(form.format(tmp_path / "below"), Path("data"))


@pytest.mark.parametrize("folder", ["x" * 300, "a\0b"])
def test_a_data_folder_that_the_system_refuses_is_an_input_error(
    tmp_path: Path, folder: str
) -> None:
    with pytest.raises(InputError, match="cannot be looked at"):
        load_dataset("inat2018", tmp_path / folder)


def test_a_link_to_itself_is_no_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg")
    (tmp_path / "a" / "loop").symlink_to("loop")
    (tmp_path / "a" / "2.jpg").symlink_to("2.jpg")
    samples = load_dataset(str(tmp_path), Path("data")).splits["train"]
    assert [sample.path for sample in samples] == ["a/1.jpg", "a/2.jpg"]


def test_class_subfolder_file_is_not_silently_read_as_split_class_file(tmp_path: Path) -> None:
    touch(tmp_path, "cats/2020/x.png", "dogs/2021/y.png")
    with pytest.raises(InputError, match=r"'cats', 'dogs'") as caught:
        load_dataset(str(tmp_path), Path("data"))
    for said in ("split/class/file", "rename", "--split"):
        assert said in str(caught.value)
    named = load_dataset(str(tmp_path), Path("data"), splits=("cats", "dogs"))
    assert (tuple(named.splits), named.classes) == (("cats", "dogs"), ("2020", "2021"))


@pytest.mark.parametrize("split", ["train", "Val", "valid", "validation", "test", "dev", "eval"])
def test_one_usual_split_name_is_enough(tmp_path: Path, split: str) -> None:
    touch(tmp_path, f"{split}/a/1.jpg", "holdout/a/2.jpg")
    assert "holdout" in load_dataset(str(tmp_path), Path("data")).splits
