"""What calibration computed is not computed again, and not a byte depends on that."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from losa.extract import spool as spool_module
from losa.extract.extraction import Extraction
from losa.extract.planning import calibrated, gather_inputs, wanted_plan
from losa.extract.run import extract
from losa.extract.spool import Batch, Spool, rows_kept
from losa.extract.vit import ViTBackbone
from losa.store import create_store
from tests.extract.picture_folder import picture_folder, tiny_config
from tests.store.build import tree

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_planes_come_back_bit_by_bit_and_once(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    batches = [[torch.randn(4, 3, 5).to(dtype) for _ in range(2)] for _ in range(3)]
    with Spool(tmp_path / "s.zarr") as spool:
        for number, planes in enumerate(batches):
            spool.keep(("train", 4 * number, 4 * number + 4, 4), planes)
        for number in (2, 0, 1):
            key = ("train", 4 * number, 4 * number + 4, 4)
            found = spool.take(key, CPU)
            assert found is not None
            assert all(map(torch.equal, found, batches[number]))
            assert spool.take(key, CPU) is None
        assert spool.take(("val", 0, 4, 4), CPU) is None
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "MOST_BYTES", 100)
    with Spool(tmp_path / "s.zarr") as spool:
        spool.keep(("train", 0, 1, 1), [torch.zeros(1, 4, 5)])
        spool.keep(("train", 1, 2, 1), [torch.zeros(1, 4, 5)])
        assert spool.take(("train", 1, 2, 1), CPU) is None
        assert spool.take(("train", 0, 1, 1), CPU) is not None


def test_a_place_that_cannot_be_written_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("losa.extract.spool.tempfile.TemporaryFile", refuse)
    with Spool(tmp_path / "s.zarr") as spool:
        spool.keep(("train", 0, 1, 1), [torch.zeros(1, 4, 5)])
        assert spool.take(("train", 0, 1, 1), CPU) is None


@pytest.mark.parametrize("store_dtype", ["float16", "int8"])
def test_no_image_is_forwarded_twice_and_the_store_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_dtype: str
) -> None:
    data = picture_folder(tmp_path / "d", {"train": 9, "val": 3})
    forwarded: list[int] = []
    compute = ViTBackbone.__call__

    def counted(self: ViTBackbone, pixels: torch.Tensor) -> list[torch.Tensor]:
        forwarded.append(len(pixels))
        return compute(self, pixels)

    monkeypatch.setattr(ViTBackbone, "__call__", counted)
    config = tiny_config(data, tmp_path / "kept.zarr", store_dtype=store_dtype)
    inputs = gather_inputs(config)
    extract(config)
    rows = sum(-(-len(listed) // 4) for listed in inputs.dataset.splits.values())
    assert len(forwarded) == rows
    monkeypatch.setattr(spool_module, "MOST_BYTES", 0)
    forwarded.clear()
    extract(config.model_copy(update={"store": tmp_path / "again.zarr"}))
    assert len(forwarded) == rows + 2  # of calibration's eight rows
    assert tree(tmp_path / "kept.zarr") == tree(tmp_path / "again.zarr")


@pytest.mark.parametrize(
    ("batch_size", "shard_rows", "calibration_rows", "kept"),
    [
        (4, 4, 8, 8),
        (4, 6, 12, 12),  # a batch does not reach beyond its shard
        (8, 6, 12, 12),
        (4, 12, 10, 8),  # where calibration ends inside a batch, that is forwarded again
        (4, 16, 512, 27),
    ],
)
def test_as_many_rows_are_kept_as_the_prediction_says(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch_size: int,
    shard_rows: int,
    calibration_rows: int,
    kept: int,
) -> None:
    data = picture_folder(tmp_path / "d", {"train": 9, "val": 3})
    sizes = {"batch_size": batch_size, "shard_rows": shard_rows}
    config = tiny_config(data, tmp_path / "s.zarr", calibration_rows=calibration_rows, **sizes)
    assert rows_kept(wanted_plan(gather_inputs(config)), config.store) == kept
    taken: list[int] = []
    take = Spool.take

    def counted(self: Spool, batch: Batch, device: torch.device) -> list[torch.Tensor] | None:
        found = take(self, batch, device)
        taken.append(0 if found is None else batch[2] - batch[1])
        return found

    monkeypatch.setattr(Spool, "take", counted)
    extract(config)
    assert sum(taken) == kept


def test_no_more_rows_are_said_to_be_kept_than_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = picture_folder(tmp_path / "d", {"train": 9})
    plan = wanted_plan(gather_inputs(tiny_config(data, tmp_path / "s.zarr")))
    batch_bytes = 4 * 2 * 5 * 192 * 4  # images, taps, tokens, channels, float32
    for most, kept in ((batch_bytes - 1, 0), (batch_bytes, 4), (-5, 0)):
        monkeypatch.setattr(spool_module, "MOST_BYTES", most)
        assert rows_kept(plan, tmp_path) == kept


def test_what_could_not_be_read_before_is_computed_when_it_is_written(tmp_path: Path) -> None:
    data = picture_folder(tmp_path / "d", {"train": 4})
    config = tiny_config(data, tmp_path / "s.zarr", on_error="skip", calibration_rows=512)
    extract(config.model_copy(update={"store": tmp_path / "clean.zarr"}))
    lost = data / "train/red/000.png"
    inputs = gather_inputs(config)
    plan, content, times = wanted_plan(inputs), lost.read_bytes(), lost.stat()
    with Spool(config.store) as spool:
        lost.write_bytes(b"")
        os.utime(lost, ns=(times.st_atime_ns, times.st_mtime_ns))
        statistics = Extraction(inputs, config.store, plan).calibrate(spool)
        lost.write_bytes(content)
        os.utime(lost, ns=(times.st_atime_ns, times.st_mtime_ns))
        plan = calibrated(plan, statistics)
        arrays = statistics.arrays("float16")
        create_store(config.store, plan, inputs.dataset.splits, arrays, durable=False)
        Extraction(inputs, config.store, plan).write(spool=spool)
    tokens = "train/tokens"
    assert tree(config.store / tokens) == tree(tmp_path / "clean.zarr" / tokens)
