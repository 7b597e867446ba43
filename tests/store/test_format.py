"""A store can be read with json, struct and numpy alone, as docs/store-format.md says."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from losa.features import StoreDtype
from tests.store.build import features, samples, small_plan, small_store

MAX_UINT64 = 2**64 - 1


def read_split(root: Path, split: str) -> dict[int, np.ndarray]:
    """Read a split's raw tokens by tap, trusting nothing: this is the specification in code."""
    sealed = json.loads((root / ".losa/sealed.json").read_text())
    for name, digest in sealed["files"].items():
        assert hashlib.sha256((root / name).read_bytes()).hexdigest() == digest
    plan = json.loads((root / ".losa/plan.json").read_text())
    assert plan["format"]["major"] == 1
    spec = plan["identity"]["features"]
    grid = spec["grid"]
    tokens = grid["prefix"] + grid["time"] * grid["height"] * grid["width"]
    dtype = {"float16": "<f2", "bfloat16": "<u2", "float32": "<f4"}[spec["dtype"]]
    record = tokens * spec["channels"] * np.dtype(dtype).itemsize
    rows = plan["identity"]["dataset"]["splits"][split]["rows"]
    step = plan["identity"]["shard_rows"]
    planes: dict[int, np.ndarray] = {}
    for tap in spec["taps"]:
        parts = []
        for shard in range(-(-rows // step)):
            held = min(rows, (shard + 1) * step) - shard * step
            data = (root / f"{split}/tokens/tap{tap:02d}/c.{shard}.0.0").read_bytes()
            index, crc = data[held * record : -4], struct.unpack("<I", data[-4:])[0]
            assert crc32c(index) == crc
            entries = struct.unpack(f"<{2 * step}Q", index)
            for slot in range(step):
                want = (slot * record, record) if slot < held else (MAX_UINT64, MAX_UINT64)
                assert entries[2 * slot : 2 * slot + 2] == want
            check = np.frombuffer(
                (root / f"{split}/check/tap{tap:02d}/c.{shard}").read_bytes(), "<u4"
            )
            for slot in range(held):
                assert zlib.crc32(data[slot * record : (slot + 1) * record]) == check[slot]
            raw = np.frombuffer(data[: held * record], dtype)
            parts.append(raw.reshape(held, tokens, spec["channels"]))
        planes[tap] = np.concatenate(parts)
    return planes


def crc32c(data: bytes) -> int:
    """CRC-32C bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 * (crc & 1))
    return crc ^ 0xFFFFFFFF


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_json_struct_and_numpy_are_enough_to_read_a_store(
    tmp_path: Path, dtype: StoreDtype
) -> None:
    plan = small_plan(dtype=dtype)
    root = small_store(tmp_path / "s.zarr", plan)
    for split in plan.splits:
        planes = read_split(root, split)
        for number, tap in enumerate(plan.spec.taps):
            np.testing.assert_array_equal(planes[tap], features(plan, split)[number])


def test_rows_find_their_samples_through_source_index(tmp_path: Path) -> None:
    plan = small_plan()
    root = small_store(tmp_path / "s.zarr", plan)
    lines = (root / ".losa/samples/train.jsonl").read_text().splitlines()
    table = [json.loads(line) for line in lines]
    assert table == [[item.key, item.path, item.label] for item in samples(plan)["train"]]
    source = np.frombuffer((root / "train/sample/source_index/c.0").read_bytes(), "<i8")
    label = np.frombuffer((root / "train/sample/label/c.0").read_bytes(), "<i4")
    assert [table[index][2] for index in source] == label.tolist()
