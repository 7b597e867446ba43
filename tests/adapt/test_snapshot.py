"""The file a resume continues from: whole, its own, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from losa.adapt.snapshot import Snapshot, load_snapshot, save_snapshot
from losa.errors import MismatchError, StoreError

TENSORS = {"weights/a": torch.randn(3, 4), "moments/a/step": torch.tensor(7.0)}
STATE = {"epoch": 2, "step": 5, "best": None, "usage": {"seconds": 0.1}}


@pytest.fixture(name="path")
def fixture_path(tmp_path: Path) -> Path:
    path = tmp_path / "last.safetensors"
    save_snapshot(path, Snapshot(TENSORS, STATE), "run")
    return path


def test_a_snapshot_comes_back_as_it_was_saved(path: Path) -> None:
    found = load_snapshot(path, "run")
    assert found is not None
    assert found.state == STATE
    assert found.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(found.tensors[name], TENSORS[name]) for name in TENSORS)
    assert found.group("moments").keys() == {"a/step"}


def test_equal_states_are_equal_files(path: Path, tmp_path: Path) -> None:
    save_snapshot(tmp_path / "again", Snapshot(TENSORS, STATE), "run")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_no_file_means_no_snapshot(tmp_path: Path) -> None:
    assert load_snapshot(tmp_path / "last.safetensors", "run") is None


def test_a_snapshot_of_another_run_is_refused(path: Path) -> None:
    with pytest.raises(MismatchError, match="belongs to another run"):
        load_snapshot(path, "other")


def test_damage_is_named_wherever_it_is(path: Path) -> None:
    whole = path.read_bytes()
    for place in (3, 20, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises((StoreError, MismatchError)):
            load_snapshot(path, "run")
    path.write_bytes(whole[:-1])
    with pytest.raises(StoreError, match="is damaged"):
        load_snapshot(path, "run")


def test_a_file_that_is_no_snapshot_or_of_another_format_is_named(path: Path) -> None:
    path.write_bytes(safetensors.torch.save(TENSORS))
    with pytest.raises(StoreError, match="is damaged"):
        load_snapshot(path, "run")
    path.write_bytes(safetensors.torch.save(TENSORS, metadata={"losa": '{"format":2}'}))
    with pytest.raises(StoreError, match="has format 2"):
        load_snapshot(path, "run")
