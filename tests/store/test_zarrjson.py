"""Claims of losa.store.zarrjson: zarr-python opens what we write, and reads the same bytes."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from losa.features import StoreDtype
from losa.store import layout
from tests.store.build import (
    begin_store,
    features,
    samples,
    small_plan,
    small_store,
    statistics,
    token_scales,
)


def open_quietly(path: Path) -> Any:
    with warnings.catch_warnings():
        # zarr-python says of every consolidated v3 group that the form is not in the spec yet.
        warnings.simplefilter("ignore")
        return zarr.open_group(str(path), mode="r")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int8"])
@pytest.mark.parametrize("rows", [1, 7, 8, 9, 24])
def test_zarr_python_reads_the_tokens_we_wrote(
    tmp_path: Path, dtype: StoreDtype, rows: int
) -> None:
    plan = small_plan({"train": rows}, dtype)
    group = open_quietly(small_store(tmp_path / "s.zarr", plan))
    for number, tap in enumerate(plan.spec.taps):
        array = group[layout.tokens_path("train", tap)]
        assert array.shape == (rows, *plan.spec.shape[1:])
        assert array.metadata.dimension_names == ("n", "l", "d")
        assert array.attrs["losa"] == {"dtype": dtype}
        np.testing.assert_array_equal(array[:], features(plan, "train")[number])


@pytest.mark.parametrize("rows", [1, 8, 20])
def test_zarr_python_reads_the_scales_and_channels_of_int8_stores(
    tmp_path: Path, rows: int
) -> None:
    plan = small_plan({"train": rows}, "int8")
    group = open_quietly(small_store(tmp_path / "s.zarr", plan))
    scales = token_scales(plan, "train")
    assert scales is not None
    for number, tap in enumerate(plan.spec.taps):
        array = group[layout.scale_path("train", tap)]
        assert array.shape == (rows, 5)
        assert array.metadata.dimension_names == ("n", "l")
        np.testing.assert_array_equal(array[:], scales[number])
        channel = group[f"calib/{layout.tap_name(tap)}/channel"][:]
        np.testing.assert_array_equal(channel, statistics(plan)["channel"][number])


def test_zarr_python_reads_the_sample_columns(tmp_path: Path) -> None:
    plan = small_plan()
    group = open_quietly(small_store(tmp_path / "s.zarr", plan))
    for split in plan.splits:
        source = group[f"{split}/sample/source_index"][:]
        labels = [sample.label for sample in samples(plan)[split]]
        np.testing.assert_array_equal(np.sort(source), np.arange(len(labels)))
        np.testing.assert_array_equal(group[f"{split}/sample/label"][:], np.array(labels)[source])
        assert (group[f"{split}/sample/status"][:] == 1).all()
        assert (group[f"{split}/sample/view"][:] == 0).all()


def test_consolidated_metadata_lists_every_member(tmp_path: Path) -> None:
    group = open_quietly(small_store(tmp_path / "s.zarr"))
    assert group.metadata.consolidated_metadata is not None
    on_disk = {
        path.parent.relative_to(tmp_path / "s.zarr").as_posix()
        for path in (tmp_path / "s.zarr").rglob("zarr.json")
    } - {"."}
    assert set(group.metadata.consolidated_metadata.flattened_metadata) == on_disk


def test_an_empty_store_is_a_valid_hierarchy(tmp_path: Path) -> None:
    plan = small_plan()
    begin_store(tmp_path / "s.zarr", plan)
    group = open_quietly(tmp_path / "s.zarr")
    assert group["train/tokens/tap01"].shape == (20, 5, 6)


def test_a_shard_file_holds_the_records_of_zarr_pythons_in_as_many_bytes(tmp_path: Path) -> None:
    plan = small_plan({"train": 20})
    ours = small_store(tmp_path / "s.zarr", plan)
    theirs = zarr.create_array(
        str(tmp_path / "z.zarr"),
        shape=(20, 5, 6),
        shards=(8, 5, 6),
        chunks=(1, 5, 6),
        dtype="float16",
        compressors=None,
        chunk_key_encoding={"name": "default", "separator": "."},
        config={"write_empty_chunks": True},
    )
    theirs[:] = features(plan, "train")[0]
    for shard in range(3):
        name = f"c.{shard}.0.0"
        mine = (ours / "train/tokens/tap01" / name).read_bytes()
        other = (tmp_path / "z.zarr" / name).read_bytes()
        assert len(mine) == len(other)
        for slot in range(8):
            assert record(mine, slot) == record(other, slot)


def record(shard: bytes, slot: int) -> bytes | None:
    """The bytes that a shard of eight slots holds for one of them, by its own index."""
    offset, size = struct.unpack_from("<QQ", shard, len(shard) - 4 - 16 * (8 - slot))
    return None if offset == 2**64 - 1 else shard[offset : offset + size]
