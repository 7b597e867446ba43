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
from tests.store.build import features, samples, small_plan, small_store, token_scales, tree

MAX_UINT64 = 2**64 - 1
STATISTICS = ("mean", "std", "absmax", "channel")


def read_split(root: Path, split: str) -> dict[int, tuple[np.ndarray, np.ndarray | None]]:
    """Read a split's raw tokens and scales by tap, trusting nothing: the specification in code."""
    sealed = json.loads((root / ".losa/sealed.json").read_text())
    for name, digest in sealed["files"].items():
        assert hashlib.sha256((root / name).read_bytes()).hexdigest() == digest
    digest = sealed.pop("digest")
    assert hashlib.sha256(canonical(sealed)).hexdigest() == digest
    plan = json.loads((root / ".losa/plan.json").read_text())
    assert plan["format"]["major"] == 1
    spec = plan["identity"]["features"]
    grid = spec["grid"]
    tokens = grid["prefix"] + grid["time"] * grid["height"] * grid["width"]
    dtype = {"float16": "<f2", "bfloat16": "<u2", "float32": "<f4", "int8": "|i1"}[spec["dtype"]]
    rows = plan["identity"]["dataset"]["splits"][split]["rows"]
    step = plan["identity"]["shard_rows"]
    planes: dict[int, tuple[np.ndarray, np.ndarray | None]] = {}
    for tap in spec["taps"]:
        arrays: list[tuple[str, str, tuple[int, ...]]] = [
            (f"{split}/tokens/tap{tap:02d}/c.%d.0.0", dtype, (tokens, spec["channels"]))
        ]
        if spec["dtype"] == "int8":
            arrays.append((f"{split}/scale/tap{tap:02d}/c.%d.0", "<f2", (tokens,)))
        parts: list[list[np.ndarray]] = [[] for _ in arrays]
        for shard in range(-(-rows // step)):
            held = min(rows, (shard + 1) * step) - shard * step
            found = [
                read_shard(root / (name % shard), item, (held, *shape), step)
                for name, item, shape in arrays
            ]
            name = f"{split}/check/tap{tap:02d}/c.{shard}"
            checks = np.frombuffer((root / name).read_bytes(), "<u4")
            for slot in range(held):
                records = b"".join(values[slot].tobytes() for values in found)
                assert zlib.crc32(records) == checks[slot]
            for part, values in zip(parts, found, strict=True):
                part.append(values)
        whole = [np.concatenate(part) for part in parts]
        planes[tap] = whole[0], whole[1] if len(whole) > 1 else None
    return planes


def read_shard(path: Path, dtype: str, shape: tuple[int, ...], step: int) -> np.ndarray:
    """Read the records of one file, whose index must say where they are."""
    held, record = shape[0], int(np.prod(shape[1:])) * np.dtype(dtype).itemsize
    data = path.read_bytes()
    index, crc = data[held * record : -4], struct.unpack("<I", data[-4:])[0]
    assert crc32c(index) == crc
    entries = struct.unpack(f"<{2 * step}Q", index)
    for slot in range(step):
        want = (slot * record, record) if slot < held else (MAX_UINT64, MAX_UINT64)
        assert entries[2 * slot : 2 * slot + 2] == want
    return np.frombuffer(data[: held * record], dtype).reshape(shape)


def canonical(value: object) -> bytes:
    """Canonical JSON, as the page has it."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.encode() + b"\n"


def crc32c(data: bytes) -> int:
    """CRC-32C bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 * (crc & 1))
    return crc ^ 0xFFFFFFFF


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int8"])
def test_json_struct_and_numpy_are_enough_to_read_a_store(
    tmp_path: Path, dtype: StoreDtype
) -> None:
    plan = small_plan(dtype=dtype)
    root = small_store(tmp_path / "s.zarr", plan)
    for split in plan.splits:
        planes, scales = read_split(root, split), token_scales(plan, split)
        for number, tap in enumerate(plan.spec.taps):
            tokens, found = planes[tap]
            np.testing.assert_array_equal(tokens, features(plan, split)[number])
            if scales is None:
                assert found is None
            else:
                np.testing.assert_array_equal(found, scales[number])


def test_what_cannot_be_derived_is_there_twice(tmp_path: Path) -> None:
    plan = small_plan(dtype="int8")
    root = small_store(tmp_path / "s.zarr", plan)
    spare = tree(root / ".losa/spare")
    names = {f"calib/tap{tap:02d}/{name}/c.0" for tap in (1, 3) for name in STATISTICS}
    assert set(spare) == {"plan.json", "samples/train.jsonl", "samples/val.jsonl", *names}
    for name, data in spare.items():
        above = "" if name.startswith("calib/") else ".losa/"
        assert (root / f"{above}{name}").read_bytes() == data
    sealed = json.loads((root / ".losa/sealed.json").read_text())["files"]
    for name, data in spare.items():
        assert sealed[f".losa/spare/{name}"] == hashlib.sha256(data).hexdigest()


def test_rows_find_their_samples_through_source_index(tmp_path: Path) -> None:
    plan = small_plan()
    root = small_store(tmp_path / "s.zarr", plan)
    lines = (root / ".losa/samples/train.jsonl").read_text().splitlines()
    table = [json.loads(line) for line in lines]
    assert table == [[item.key, item.path, item.label] for item in samples(plan)["train"]]
    source = np.frombuffer((root / "train/sample/source_index/c.0").read_bytes(), "<i8")
    label = np.frombuffer((root / "train/sample/label/c.0").read_bytes(), "<i4")
    assert [table[index][2] for index in source] == label.tolist()
