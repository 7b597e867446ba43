"""Claims of losa.extract.planning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from losa.device import Compute
from losa.errors import UsageError
from losa.extract.backbones import Backbone
from losa.extract.calibrate import Statistics
from losa.extract.planning import calibrated, gather_inputs, store_place, wanted_plan
from losa.extract.run import extract
from tests.extract.picture_folder import picture_folder, tiny_config
from tests.store.build import small_plan

COUNTS = {"train": 7, "val": 2}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("pictures"), COUNTS)


@pytest.mark.parametrize(("shard_rows", "batch"), [(4, 4), (1024, 21)])
def test_an_automatic_batch_is_no_larger_than_a_shard_or_a_split(
    pictures: Path, tmp_path: Path, shard_rows: int, batch: int
) -> None:
    config = tiny_config(pictures, tmp_path / "s.zarr", batch_size="auto", shard_rows=shard_rows)
    assert wanted_plan(gather_inputs(config)).numerics.batch_size == batch


def test_on_cuda_an_automatic_batch_is_measured_once_for_a_new_store(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def measure(_: Backbone, most: int) -> int:
        asked.append(most)
        return 3

    monkeypatch.setattr("losa.extract.planning.fitted_batch", measure)
    config = tiny_config(pictures, tmp_path / "s.zarr", batch_size="auto", shard_rows=1024)
    inputs = gather_inputs(config)
    cuda = replace(inputs, compute=Compute(torch.device("cuda")))
    assert wanted_plan(cuda).numerics.batch_size == 3
    assert asked == [21]
    (tmp_path / "s.zarr").mkdir()
    assert wanted_plan(cuda).numerics.batch_size == 21
    anew = replace(cuda, config=config.model_copy(update={"overwrite": True}))
    assert wanted_plan(anew).numerics.batch_size == 3
    assert len(asked) == 2


@pytest.mark.parametrize(("split", "looked_at"), [(None, "train"), (("val",), "val")])
def test_calibration_looks_at_train_where_there_is_one(
    pictures: Path, tmp_path: Path, split: tuple[str, ...] | None, looked_at: str
) -> None:
    config = tiny_config(pictures, tmp_path / "s.zarr", split=split)
    assert wanted_plan(gather_inputs(config)).calibration_split == looked_at


def test_exponents_follow_from_the_largest_value_of_each_tap() -> None:
    absmax = np.array([[1.0, 900.0], [3.0, 100_000.0]])
    plan = calibrated(small_plan(), Statistics(absmax, absmax, absmax))
    assert plan.exponents == (0, 3)


def test_a_store_lies_where_links_lead(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "there")
    assert store_place(tmp_path / "link/s.zarr") == tmp_path / "there/s.zarr"


@pytest.mark.parametrize("name", ["/", "s\udcff.zarr", "x" * 181])
def test_a_name_that_no_store_can_have_is_refused_before_any_work(
    pictures: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(UsageError, match="--store"):
        extract(tiny_config(pictures, tmp_path / name))


@pytest.mark.parametrize("store", ["loop", "loop/s.zarr", "null\0.zarr"])
def test_a_place_that_cannot_be_found_out_is_refused_in_one_line(
    tmp_path: Path, store: str
) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "back")
    (tmp_path / "back").symlink_to(tmp_path / "loop")
    with pytest.raises(UsageError, match=r"--store: .* cannot name a store") as caught:
        store_place(tmp_path / store)
    assert "\n" not in str(caught.value)
