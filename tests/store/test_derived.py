"""Claims of losa.store.derived."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from losa.errors import StoreError
from losa.features import Sample
from losa.store import StoreWriter, files, layout
from losa.store.derived import (
    Derivation,
    check_commits,
    is_sound_commit,
    parse_listing,
    status_bytes,
)
from losa.store.listing import samples_bytes
from tests.store.build import (
    begin_store,
    features,
    fill_store,
    samples,
    small_plan,
    small_store,
    tree,
)

LISTED = [Sample("ä", "a/ä.png", 0), Sample("b", "b.png", 2)]


def test_every_derived_file_of_a_store_comes_out_as_it_was_written(tmp_path: Path) -> None:
    for dtype in ("float16", "int8"):
        plan = small_plan(dtype=dtype)
        path = small_store(tmp_path / f"{dtype}.zarr", plan)
        derivation = Derivation(plan, samples(plan).__getitem__)
        content = tree(path)
        assert all(derivation.derive(name) == content[name] for name in derivation.names)
        assert {name for name in content if name.endswith("zarr.json")} <= set(derivation.names)


def test_the_root_may_be_as_first_written_until_the_store_is_sealed(tmp_path: Path) -> None:
    plan = small_plan()
    begin_store(tmp_path / "s.zarr", plan)
    root = (tmp_path / "s.zarr/zarr.json").read_bytes()
    derivation = Derivation(plan, samples(plan).__getitem__)
    assert derivation.holds("zarr.json", root)
    assert derivation.holds("zarr.json", derivation.derive("zarr.json"))
    assert not derivation.holds("zarr.json", root + b" ")


def test_a_listing_is_parsed_as_it_was_written(tmp_path: Path) -> None:
    assert parse_listing(tmp_path, samples_bytes(LISTED)) == LISTED


@pytest.mark.parametrize(
    "data", [b'["a","b"]\n', b'["a","b",true]\n', b'{"a":1}\n', b'["a","b",1]', b'["a", "b",1]\n']
)
def test_what_is_no_samples_table_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(StoreError, match="is not a samples table"):
        parse_listing(tmp_path, data)


def test_status_follows_from_the_skipped_rows(tmp_path: Path) -> None:
    plan, path = small_plan({"train": 20}), tmp_path / "s.zarr"
    begin_store(path, plan)
    with StoreWriter(path, durable=False) as writer:
        for task in writer.claimed():
            with writer.shard(task) as shard:
                status = np.ones(task.rows, np.uint8)
                status[1] = 3
                shard.skip(task.first + 1, "key", 3, "corrupt")
                rows = features(plan, "train")[:, task.first : task.stop]
                shard.write(list(rows), status)
    for number in range(3):
        record = files.read_json(path / layout.commit_object("train", number))
        content = (path / layout.status_object("train", number)).read_bytes()
        assert status_bytes(plan, "train", number, record["skipped"]) == content
        assert is_sound_commit(plan, "train", number, record)


def change_tokens(record: Any) -> None:
    record["objects"]["train/tokens/tap01/c.1.0.0"]["checks"] = "0" * 64


def change_size(record: Any) -> None:
    record["objects"]["train/check/tap01/c.1"]["bytes"] = "32"


def change_status(record: Any) -> None:
    record["objects"]["train/sample/status/c.1"]["sha256"] = "0" * 64


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("skipped"),
        lambda record: record.update(shard=0),
        lambda record: record.update(rows=[8, 15]),
        lambda record: record.update(ok=7),
        lambda record: record.update(ok=7, skipped=[{"row": 99, "code": 2}]),
        lambda record: record.update(ok=7, skipped=[{"row": 9, "code": 1}]),
        lambda record: record.update(objects=[]),
        lambda record: record["objects"].pop("train/tokens/tap03/c.1.0.0"),
        change_tokens,
        change_size,
        change_status,
    ],
)
def test_a_commit_record_that_cannot_be_is_not_sound(
    tmp_path: Path, change: Callable[[Any], None]
) -> None:
    plan = small_plan({"train": 20})
    path = small_store(tmp_path / "s.zarr", plan)
    record = files.read_json(path / layout.commit_object("train", 1))
    assert is_sound_commit(plan, "train", 1, record)
    changed = copy.deepcopy(record)
    change(changed)
    assert not is_sound_commit(plan, "train", 1, changed)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("train/sample/label/c.0", "is not what follows from the plan"),
        ("val/sample/source_index/c.0", "is not what follows from the plan"),
        ("train/tokens/tap01/zarr.json", "is not what follows from the plan"),
        ("zarr.json", "is not what follows from the plan"),
        ("calib/tap03/std/c.0", "is not what its second copy is"),
        (".losa/samples/train.jsonl", "is not what its second copy is"),
        (".losa/spare/plan.json", r"plan\.json: is not what its second copy is"),
    ],
)
def test_what_has_changed_since_the_store_was_created_is_not_sealed(
    tmp_path: Path, name: str, what: str
) -> None:
    path = tmp_path / "s.zarr"
    begin_store(path, small_plan())
    data = bytearray((path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (path / name).write_bytes(data)
    with pytest.raises(StoreError, match=what):
        fill_store(path, small_plan())
    assert not (path / layout.SEALED_OBJECT).exists()


def test_a_listing_that_is_none_is_not_sealed(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    begin_store(path, small_plan())
    name = layout.samples_object("val")
    for copy_of_it in (name, layout.spare_object(name)):
        (path / copy_of_it).write_bytes(b'["a", ')
    with pytest.raises(StoreError, match="is not a samples table"):
        fill_store(path, small_plan())


def test_a_listing_of_another_length_is_not_sealed(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    begin_store(path, small_plan())
    for name in (layout.samples_object("val"), layout.spare_object(layout.samples_object("val"))):
        lines = (path / name).read_bytes().splitlines(keepends=True)
        (path / name).write_bytes(b"".join(lines[:-1]))
    with pytest.raises(StoreError, match="lists 7 samples, not the plan's"):
        fill_store(path, small_plan())


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"{", "is not sound JSON"),
        (b'{"ok":3}\n', "is not a sound commit record"),
        (None, "is not a sound commit record"),
    ],
)
def test_no_seal_vouches_for_a_commit_record_that_says_what_cannot_be(
    tmp_path: Path, data: bytes | None, what: str
) -> None:
    path = small_store(tmp_path / "s.zarr")
    check_commits(path, small_plan())
    commit = path / layout.commit_object("val", 0)
    commit.write_bytes(commit.read_bytes() + b" " if data is None else data)
    (path / layout.SEALED_OBJECT).unlink()
    with StoreWriter(path) as writer, pytest.raises(StoreError, match=what) as caught:
        writer.seal()
    assert caught.value.subject == str(commit)
