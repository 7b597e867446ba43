"""A store of several views of each train sample: kept whole by all that keeps stores."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from losa.errors import StoreError
from losa.store import files, layout, open_store
from losa.store.comparing import compare_stores
from losa.store.exchange import export_store, import_store
from losa.store.h5store import open_h5
from losa.store.inspect import describe_store
from losa.store.listing import listing_digest
from losa.store.plan import Plan, SplitPlan
from losa.store.repair import repair_store
from losa.store.seal import seal_digest
from losa.store.verify import verify_store
from tests.store.build import features, samples, small_plan, small_store, tree

COLUMNS = ("source_index", "label", "view")


def viewed_plan() -> Plan:
    """Three views of five train samples, and one of three val samples."""
    plan = small_plan({"train": 5, "val": 3}, shard_rows=4, views=3)
    listed = samples(plan)
    splits = {
        name: SplitPlan(item.samples, item.rows, listing_digest(listed[name]))
        for name, item in plan.splits.items()
    }
    return replace(plan, splits=splits)


@pytest.fixture(name="store")
def fixture_store(tmp_path: Path) -> Path:
    return small_store(tmp_path / "s.zarr", viewed_plan())


def test_the_columns_name_every_view_of_every_sample_once(store: Path) -> None:
    column = {
        name: np.frombuffer((store / f"train/sample/{name}/c.0").read_bytes(), dtype)
        for name, dtype in zip(COLUMNS, ("<i8", "<i4", "|u1"), strict=True)
    }
    pairs = set(zip(column["source_index"].tolist(), column["view"].tolist(), strict=True))
    assert pairs == {(sample, view) for sample in range(5) for view in range(3)}
    labels = [sample.label for sample in samples(viewed_plan())["train"]]
    assert column["label"].tolist() == [labels[index] for index in column["source_index"]]
    stream = int.from_bytes(hashlib.sha256(b"train").digest()[:8])
    order = np.argsort(np.random.Philox(key=[0, stream], counter=[0] * 4).random_raw(15))
    assert column["view"].tolist() == (order // 5).tolist()
    assert (store / "val/sample/view/c.0").read_bytes() == bytes(3)


def test_a_reader_says_which_view_a_row_is_and_reads_it(store: Path) -> None:
    opened = open_store(store)
    train = opened.split("train")
    assert (train.rows, len(train.samples)) == (15, 5)
    assert sorted(train.views.tolist()) == sorted([0, 1, 2] * 5)
    assert not opened.split("val").views.any()
    out = np.zeros((2, 15, 5, 6), "<f2")
    train.read_into(np.arange(15), (1, 3), out)
    np.testing.assert_array_equal(out, features(viewed_plan(), "train"))


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("name", COLUMNS)
def test_a_damaged_column_is_found_and_mended_byte_for_byte(
    store: Path, name: str, split: str
) -> None:
    before = tree(store)
    path = store / f"{split}/sample/{name}/c.0"
    path.write_bytes(bytes(len(path.read_bytes()) - 1) + b"\1")
    assert [problem.path for problem in verify_store(store)] == [f"{split}/sample/{name}/c.0"]
    repair_store(store, act=True)
    after = {name: data for name, data in tree(store).items() if "quarantine" not in name}
    assert after == before


def test_a_column_that_the_seal_vouches_for_and_the_plan_does_not_is_refused(store: Path) -> None:
    name = "train/sample/view/c.0"
    data = bytes([7, *(store / name).read_bytes()[1:]])
    (store / name).write_bytes(data)
    seal = files.read_json(store / layout.SEALED_OBJECT)
    seal["files"][name] = files.sha256(data)
    seal["digest"] = seal_digest(seal)
    (store / layout.SEALED_OBJECT).write_bytes(files.canonical_json(seal))
    with pytest.raises(StoreError, match=r"view/c\.0: names views that there are not"):
        _ = open_store(store).split("train").views


def test_a_store_goes_through_a_file_and_comes_back_byte_for_byte(
    store: Path, tmp_path: Path
) -> None:
    export_store(store, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert (file["train/sample/view"].shape, file["train/sample/key"].shape) == ((15,), (5,))
    from_file, from_folder = (
        item.split("train") for item in (open_h5(tmp_path / "a.h5"), open_store(store))
    )
    np.testing.assert_array_equal(from_file.views, from_folder.views)
    assert from_file.samples == from_folder.samples
    got = import_store(tmp_path / "a.h5", tmp_path / "t.zarr")
    assert tree(tmp_path / "t.zarr") == tree(store)
    assert got["is_original"]


def test_rows_of_two_stores_are_matched_by_sample_and_view(store: Path, tmp_path: Path) -> None:
    # Another seed puts the same features, all of them different, in another order.
    other = small_store(tmp_path / "o.zarr", replace(viewed_plan(), order_seed=1))
    left, right = open_store(store).split("train"), open_store(other).split("train")
    keys = [
        list(zip(r.source_index.tolist(), r.views.tolist(), strict=True)) for r in (left, right)
    ]
    planes = features(viewed_plan(), "train").astype(np.float64)
    matched = planes[:, [keys[1].index(key) for key in keys[0]]]
    compared = compare_stores(store, other, rtol=10.0)
    found = {row.tap: row.relative_l2 for row in compared.taps if row.split == "train"}
    for number, tap in enumerate((1, 3)):
        difference = np.linalg.norm(matched[number] - planes[number])
        assert found[tap] == pytest.approx(difference / np.linalg.norm(planes[number]))


def test_a_copy_of_a_store_of_views_is_identical_to_it(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "c.zarr")
    assert compare_stores(store, tmp_path / "c.zarr").identical


def test_what_a_store_is_says_how_many_views_it_has_and_how_they_came_about(store: Path) -> None:
    found = describe_store(store)
    assert found["views"] == 3
    assert found["augment"] == {"policy": "crop-flip", "rules": 1, "seed": 0}
    assert found["splits"]["train"]["rows"] == 15
