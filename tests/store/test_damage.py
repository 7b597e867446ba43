"""Claims of losa.store.damage."""

from __future__ import annotations

import errno
import os
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from losa.errors import ResourceError
from losa.features import StoreDtype
from losa.store import Plan, files, layout
from losa.store.damage import (
    content_damage,
    record_checks,
    shard_bytes,
    shard_damage,
    size_damage,
)
from losa.store.ways import Ways
from tests.store.build import features, small_plan, small_store, token_scales

WHERE = ("train", 1)
COMMIT = layout.commit_object(*WHERE)
TOKENS, CHECK = "train/tokens/tap01/c.1.0.0", "train/check/tap01/c.1"


@pytest.fixture(params=["float16", "int8"])
def plan(request: pytest.FixtureRequest) -> Plan:
    dtype: StoreDtype = request.param
    return small_plan({"train": 20}, dtype)


@pytest.fixture
def store(tmp_path: Path, plan: Plan) -> Path:
    return small_store(tmp_path / "s.zarr", plan)


def damage(path: Path, plan: Plan, *, deep: bool = True) -> dict[str, str]:
    """What is wrong with shard 1 of train, as its commit record has it."""
    objects = files.read_json(path / COMMIT)["objects"]
    found = list(shard_damage(Ways(path), plan, WHERE, objects, deep=deep))
    assert all(problem.shard == WHERE for problem in found)
    return {problem.path: problem.what for problem in found}


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


def test_checksums_go_over_tokens_and_then_scales(store: Path, plan: Plan) -> None:
    tokens, scales = features(plan, "train")[0, 8:16], token_scales(plan, "train")
    want = [zlib.crc32(row.tobytes()) for row in tokens]
    paths, sizes = [store / TOKENS], [plan.spec.record_bytes]
    if scales is not None:
        rows = scales[0, 8:16]
        want = [zlib.crc32(row.tobytes(), sum_) for row, sum_ in zip(rows, want, strict=True)]
        paths.append(store / layout.scale_object("train", 1, 1))
        sizes.append(plan.spec.scale_bytes)
    assert record_checks(paths, sizes, 8).tolist() == want
    assert np.fromfile(store / CHECK, "<u4").tolist() == want


def test_the_bytes_of_a_shard_are_those_of_its_files(store: Path, plan: Plan) -> None:
    for shard in range(3):
        paths = [
            *store.glob(f"train/tokens/*/c.{shard}.*"),
            *store.glob(f"train/scale/*/c.{shard}.*"),
        ]
        assert shard_bytes(plan, "train", shard) == sum(path.stat().st_size for path in paths)


def test_a_sound_shard_has_no_damage(store: Path, plan: Plan) -> None:
    assert damage(store, plan) == {}
    assert size_damage(store, store / COMMIT) is None
    assert content_damage(store, plan, *WHERE) is None


def test_a_flipped_bit_is_found_by_reading_and_the_row_named(store: Path, plan: Plan) -> None:
    flip(store / TOKENS, 3 * plan.spec.record_bytes)
    assert damage(store, plan, deep=False) == {}
    assert damage(store, plan)[TOKENS] == "row 11 does not match its checksum"
    assert content_damage(store, plan, *WHERE) == f"{TOKENS} row 11 does not match its checksum"
    flip(store / CHECK, 0)
    found = damage(store, plan)
    assert found[TOKENS] == "does not match its commit record"
    assert found[CHECK] == "is not the file that was committed"
    (store / CHECK).unlink()
    assert damage(store, plan)[CHECK] == "is missing"


def test_sizes_indices_and_names_are_compared_without_reading(store: Path, plan: Plan) -> None:
    flip(store / TOKENS, -1)
    assert damage(store, plan, deep=False) == {TOKENS: "has a damaged index"}
    os.truncate(store / TOKENS, 7)
    size = layout.shard_file_bytes(8, 8, plan.spec.record_bytes)
    assert damage(store, plan) == {TOKENS: f"is 7 bytes, not {size}"}
    assert size_damage(store, store / COMMIT) == f"{TOKENS} is 7 bytes, not {size}"
    (store / TOKENS).unlink()
    assert size_damage(store, store / COMMIT) == f"{TOKENS} is missing"
    record = files.read_json(store / COMMIT)
    for name in (TOKENS, CHECK):
        del record["objects"][name]
    shutil.copy(store / "train/tokens/tap01/c.0.0.0", store / TOKENS)
    (store / COMMIT).write_bytes(files.canonical_json(record))
    assert damage(store, plan) == dict.fromkeys((TOKENS, CHECK), "is not in its commit record")


def test_an_unsound_commit_record_is_said_to_be(store: Path) -> None:
    for text in ("{", "{}", '{"objects":[]}', '{"objects":{"zarr.json":{}}}'):
        (store / COMMIT).write_text(text)
        assert size_damage(store, store / COMMIT) == f"{COMMIT} is not sound"


def test_a_file_that_is_cut_while_it_is_read_does_not_match(
    store: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "preadv", lambda *_: 0)
    assert damage(store, plan)[TOKENS] == "row 8 does not match its checksum"


@pytest.mark.parametrize("act", ["pread", "preadv"])
def test_a_failing_disk_is_a_resource_error(
    store: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, act, fail)
    with pytest.raises(ResourceError, match="input/output error"):
        damage(store, plan)
