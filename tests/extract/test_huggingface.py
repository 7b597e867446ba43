"""Claims of losa.extract.huggingface, held against the library itself."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from losa.errors import InputError, UsageError
from losa.extract import huggingface
from losa.extract.arrow import ImageCell
from losa.extract.datasets import load_dataset
from losa.extract.images import ImageError, open_rgb
from losa.extract.media import Media
from losa.features import Sample
from tests.extract.shards import png

datasets = pytest.importorskip("datasets", reason="the extra hub is not installed")

from tests.extract.hub_rows import NAMES, rows, saved  # noqa: E402 -- after the check above


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.disable_progress_bars()


def bytes_of(place: Media) -> bytes:
    """What lies at a place, read without losa."""
    assert place.size is not None
    return place.path.read_bytes()[place.offset : place.offset + place.size]


def test_every_image_lies_in_its_arrow_file_where_the_listing_says(tmp_path: Path) -> None:
    parts = {"train": rows(7), "validation": rows(3, first=7)}
    folder = saved(
        datasets.DatasetDict(parts), tmp_path / "set", num_shards={"train": 2, "validation": 1}
    )
    dataset = load_dataset(f"hf:{folder}", Path("data"))
    assert (dataset.name, dataset.classes) == ("hf:set", NAMES)
    assert dataset.splits["train"][1] == Sample("train/00000001", "train/00000001", 1)
    assert {name: len(listed) for name, listed in dataset.splits.items()} == {"train": 7, "val": 3}
    found = [bytes_of(dataset.media(item)) for listed in dataset.splits.values() for item in listed]
    assert found == [png(10 * number) for number in range(10)]
    assert {dataset.media(item).path.name for item in dataset.splits["train"]} == {
        "data-00000-of-00002.arrow",
        "data-00001-of-00002.arrow",
    }


def test_rows_that_were_shuffled_and_selected_are_listed_in_their_new_order(tmp_path: Path) -> None:
    order = [4, 0, 3]
    folder = saved(rows(6).select(order), tmp_path / "set")
    dataset = load_dataset(f"hf:{folder}", Path("data"))
    assert [bytes_of(dataset.media(item)) for item in dataset.splits["train"]] + [
        bytes_of(dataset.media(item)) for item in dataset.splits.get("val", ())
    ] == [png(10 * number) for number in order]


def test_one_table_without_splits_is_parted_by_the_seed(tmp_path: Path) -> None:
    folder = saved(rows(30), tmp_path / "set")
    dataset = load_dataset(f"hf:{folder}", Path("data"), seed=1)
    assert {name: len(listed) for name, listed in dataset.splits.items()} == {
        "train": 24,
        "val": 6,
    }
    shutil.copytree(folder, tmp_path / "else/set")
    again = load_dataset(f"hf:{tmp_path}/else/set", Path("data"), seed=1)
    assert (again.name, again.splits) == (dataset.name, dataset.splits)


def test_labels_may_be_names_or_several_or_none(tmp_path: Path) -> None:
    text = datasets.Value("string")
    several = datasets.Sequence(datasets.ClassLabel(names=list(NAMES)))
    named = saved(rows(2, label=text, labels=["oak", "elm"]), tmp_path / "named")
    many = saved(rows(2, label=several, labels=[[2, 0], []]), tmp_path / "many")
    none = saved(rows(6).remove_columns("label"), tmp_path / "none")
    unknown = saved(datasets.DatasetDict({"test": rows(2, labels=[-1, -1])}), tmp_path / "unknown")
    assert load_dataset(f"hf:{named}", Path("data")).classes == ("elm", "oak")
    listed = load_dataset(f"hf:{many}", Path("data"))
    assert [item.labels for item in listed.splits["train"]] == [(0, 2), ()]
    assert listed.classes == NAMES
    assert load_dataset(f"hf:{none}", Path("data")).classes == ()
    hidden = load_dataset(f"hf:{unknown}", Path("data"))
    assert ([item.label for item in hidden.splits["test"]], hidden.classes) == ([-1, -1], NAMES)


def test_a_cell_with_a_path_alone_is_that_file(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file in files:
        file.write_bytes(png(1))
    table = datasets.Dataset.from_dict(
        {"image": [str(file) for file in files]},
        features=datasets.Features({"image": datasets.Image()}),
    )
    table.save_to_disk(str(tmp_path / "set"))
    dataset = load_dataset(f"hf:{tmp_path}/set", Path("data"))
    found = {dataset.media(item).path for item in dataset.splits["train"]}
    assert found <= {*files, tmp_path / "set/data-00000-of-00001.arrow"}
    assert not any(str(tmp_path) in item.path for item in dataset.splits["train"])


def test_splits_can_be_asked_for(tmp_path: Path) -> None:
    folder = saved(datasets.DatasetDict({"train": rows(3), "test": rows(2)}), tmp_path / "set")
    assert list(load_dataset(f"hf:{folder}", Path("data"), splits=("test",)).splits) == ["test"]
    with pytest.raises(UsageError, match=r"--split: .*use one of train, test"):
        load_dataset(f"hf:{folder}", Path("data"), splits=("val",))


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ({"label": [0]}, "has no images"),
        ({"image": [None], "label": [0.5]}, "column label holds .*float64.*, which is no label"),
        ({"image": [None], "label": ["a"], "labels": ["b"]}, "several columns of labels"),
    ],
)
def test_a_table_without_one_image_a_row_is_refused(
    tmp_path: Path, columns: dict[str, list[object]], what: str
) -> None:
    table = datasets.Dataset.from_dict(columns)
    if "image" in columns:
        table = table.cast_column("image", datasets.Image())
    folder = saved(table, tmp_path / "set")
    with pytest.raises(InputError, match=what):
        load_dataset(f"hf:{folder}", Path("data"))


def two_columns(folder: Path) -> Path:
    """Rows with a class of three, and a class of two."""
    table = rows(6).rename_column("label", "fine")
    table = table.add_column("coarse", [n % 2 for n in range(6)])
    return saved(table.cast_column("coarse", datasets.ClassLabel(names=["yes", "no"])), folder)


@pytest.mark.parametrize(
    ("column", "classes", "first"), [("fine", NAMES, (0, 1, 2)), ("coarse", ("yes", "no"), (0, 1))]
)
def test_of_several_columns_of_labels_the_one_that_is_named_counts(
    tmp_path: Path, column: str, classes: tuple[str, ...], first: tuple[int, ...]
) -> None:
    folder = two_columns(tmp_path / "set")
    dataset = load_dataset(f"hf:{folder}?label={column}", Path("data"))
    assert (dataset.name, dataset.classes) == (f"hf:set?label={column}", classes)
    found = {item.key: item.label for listed in dataset.splits.values() for item in listed}
    assert found == {f"all/{row:08d}": first[row % len(first)] for row in range(6)}


def test_several_columns_of_labels_are_refused_with_the_way_to_name_one(tmp_path: Path) -> None:
    folder = two_columns(tmp_path / "set")
    with pytest.raises(InputError) as caught:
        load_dataset(f"hf:{folder}", Path("data"))
    said = str(caught.value)
    assert "several columns of labels (fine, coarse)" in said
    suggested = said.rpartition("as in '")[2].removesuffix("'")
    assert load_dataset(suggested, Path("data")).classes == NAMES
    with pytest.raises(
        UsageError, match=r"--dataset: .*no column 'label'; use one of fine, coarse"
    ):
        load_dataset(f"hf:{folder}?label=label", Path("data"))
    with pytest.raises(InputError, match="column image holds Image"):
        load_dataset(f"hf:{folder}?label=image", Path("data"))


def test_a_row_without_an_image_is_left_to_the_decoder(tmp_path: Path) -> None:
    table = datasets.Dataset.from_dict({"image": [None]}).cast_column("image", datasets.Image())
    folder = saved(table, tmp_path / "set")
    dataset = load_dataset(f"hf:{folder}", Path("data"))
    (sample,) = dataset.splits["train"]
    with pytest.raises(ImageError, match="is empty"):
        open_rgb(dataset.media(sample))


def test_splits_of_one_name_are_refused(tmp_path: Path) -> None:
    both = datasets.DatasetDict({"val": rows(2), "validation": rows(3)})
    folder = saved(both, tmp_path / "set")
    with pytest.raises(InputError, match="are both called 'val/00000000'"):
        load_dataset(f"hf:{folder}", Path("data"))


@pytest.mark.parametrize("name", ["/etc/hostname", "../private.jpg"])
def test_an_image_outside_of_a_saved_folder_is_refused(tmp_path: Path, name: str) -> None:
    source = tmp_path / "set"
    found = huggingface._Rows(rows(1), None, huggingface._Labels(), source)
    with pytest.raises(InputError, match=r"outside of|below the folder"):
        found._media(ImageCell(source / "a.arrow", 0, None, name), source, "row 0")


def test_a_class_has_the_same_number_whichever_splits_are_asked_for(tmp_path: Path) -> None:
    parts = {
        name: rows(2).remove_columns("label").add_column("label", labels)
        for name, labels in (("train", ["x", "y"]), ("test", ["z", "y"]))
    }
    folder = saved(datasets.DatasetDict(parts), tmp_path / "set")
    some = load_dataset(f"hf:{folder}", Path("data"), splits=("test",))
    assert some.classes == load_dataset(f"hf:{folder}", Path("data")).classes == ("x", "y", "z")


def test_a_state_that_names_a_file_elsewhere_is_refused(tmp_path: Path) -> None:
    folder = saved(rows(3), tmp_path / "set")
    shutil.copy(next(folder.glob("*.arrow")), tmp_path / "secret.arrow")
    state = json.loads((folder / "state.json").read_text())
    state["_data_files"] = [{"filename": "../secret.arrow"}]
    (folder / "state.json").write_text(json.dumps(state))
    with pytest.raises(InputError, match="names a file outside of it"):
        load_dataset(f"hf:{folder}", Path("data"))


def test_an_index_file_of_old_libraries_is_refused(tmp_path: Path) -> None:
    folder = saved(rows(3), tmp_path / "set")
    state = json.loads((folder / "state.json").read_text())
    state["_indices_data_files"] = [{"filename": "indices.arrow"}]
    (folder / "state.json").write_text(json.dumps(state))
    with pytest.raises(InputError, match="orders its rows by an index file"):
        load_dataset(f"hf:{folder}", Path("data"))


def test_a_folder_that_was_not_saved_and_a_name_that_is_not_found_are_refused(
    tmp_path: Path,
) -> None:
    with pytest.raises(InputError, match="is no folder of save_to_disk"):
        load_dataset(f"hf:{tmp_path}", Path("data"))
    with pytest.raises(InputError, match="nowhere: is missing"):
        load_dataset(f"hf:{tmp_path}/nowhere", Path("data"))
    with pytest.raises(InputError, match="losa-no-such/set: cannot be opened by datasets"):
        load_dataset("hf:losa-no-such/set", Path("data"))


def test_without_the_library_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"--dataset: hf: needs .*pip install 'losa\[hub\]'"):
        load_dataset(f"hf:{tmp_path}", Path("data"))


@pytest.mark.parametrize("name", ["mnist", "/data/set"])
def test_a_column_of_labels_without_a_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"--dataset: .* names no column behind \?label="):
        load_dataset(f"hf:{name}?label=", Path("data"))
