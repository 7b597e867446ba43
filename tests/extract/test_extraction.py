"""Claims of losa.extract.extraction."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from losa.config import ExtractConfig
from losa.errors import ResourceError, StoppedError
from losa.extract.extraction import ExtractEvent
from losa.extract.fleet import Share
from losa.extract.run import extract
from losa.extract.staging import USUAL_DEPTH
from losa.extract.vit import ViTBackbone
from losa.interrupt import StopRequest
from losa.store import StoreWriter, layout, open_store
from losa.store.claims import ShardTask
from losa.store.shardwriter import ShardWriter
from tests.extract.picture_folder import picture_folder, tiny_config
from tests.store.build import tree

COUNTS = {"train": 7, "val": 2}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("pictures"), COUNTS)


@pytest.fixture(scope="module")
def sealed(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sealed") / "s.zarr"
    extract(tiny_config(pictures, path))
    return path


def test_progress_counts_rows_to_the_total(pictures: Path, tmp_path: Path) -> None:
    told: list[ExtractEvent] = []
    extract(tiny_config(pictures, tmp_path / "s.zarr"), progress=told.append)
    rows = [event.done for event in told if event.phase == "extract"]
    assert rows == sorted(rows)
    assert (rows[0], rows[-1]) == (0, 27)
    assert told[0].phase == "calibrate"


def test_the_result_and_the_resolved_configuration_lie_beside_the_store(sealed: Path) -> None:
    record = json.loads((sealed.parent / "s.zarr.extract.json").read_text())
    assert record["result"]["store_id"] == open_store(sealed).store_id
    assert ExtractConfig(**record["config"]).img_size == 32


def spied(monkeypatch: pytest.MonkeyPatch, owner: type[Any], method: str, before: Any) -> Any:
    """Let ``before`` be called with the arguments of a method, in front of it."""
    original = getattr(owner, method)

    def spy(*arguments: Any) -> Any:
        before(*arguments)
        return original(*arguments)

    monkeypatch.setattr(owner, method, spy)
    return original


def test_who_computes_does_not_write(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, set[int]] = {"forward": set(), "write": set()}
    for name, owner, method in (
        ("forward", ViTBackbone, "__call__"),
        ("write", ShardWriter, "write"),
    ):
        note = threads[name].add
        spied(monkeypatch, owner, method, lambda *_, note=note: note(threading.get_ident()))
    extract(tiny_config(pictures, tmp_path / "s.zarr"))
    assert threads["forward"] == {threading.get_ident()}
    assert len(threads["write"]) == 1
    assert not threads["write"] & threads["forward"]


def test_a_slow_disk_lets_the_device_get_only_so_far_ahead(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forwards: list[int] = [0]
    ahead: list[int] = []
    may_write = threading.Event()

    def forward(*_: Any) -> None:
        forwards[0] += 1

    def wait(*_: Any) -> None:
        may_write.wait(0.3)  # as long as an unbounded feeder would need for all of them
        ahead.append(forwards[0] - len(ahead))

    extract(tiny_config(pictures, tmp_path / "all.zarr"))
    spied(monkeypatch, ViTBackbone, "__call__", forward)
    config = tiny_config(pictures, tmp_path / "s.zarr", calibration_rows=4)
    spied(monkeypatch, ShardWriter, "write", wait)
    extract(config)
    assert len(ahead) == 8
    # One batch more than are on the way is computed, and calibration has looked at one.
    assert max(ahead) <= USUAL_DEPTH + 1


def test_a_disk_that_fails_ends_the_run_at_once_and_drops_the_shard(
    sealed: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, writes = tmp_path / "s.zarr", [0]

    def fail(*_: Any) -> None:
        writes[0] += 1
        if writes[0] > 2:
            raise ResourceError("disk", "is full")

    original = spied(monkeypatch, ShardWriter, "write", fail)
    with pytest.raises(ResourceError, match="disk: is full"):
        extract(tiny_config(pictures, path))
    assert writes == [3]
    check_dropped(path, committed=2)
    monkeypatch.setattr(ShardWriter, "write", original)
    assert extract(tiny_config(pictures, path))["computed_rows"] == 27 - 8
    assert tree(path) == tree(sealed)


def test_ctrl_c_while_computing_drops_the_shard_and_what_is_queued(
    sealed: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, forwards = tmp_path / "s.zarr", [0]

    def interrupt(_: ViTBackbone, pixels: torch.Tensor) -> None:
        forwards[0] += 1
        if forwards[0] == 2 + 7:  # calibration has looked at two batches
            raise KeyboardInterrupt

    original = spied(monkeypatch, ViTBackbone, "__call__", interrupt)
    # Shards of two batches: the seventh is in the middle of one.
    config = tiny_config(pictures, path, batch_size=2, calibration_rows=4)
    with pytest.raises(KeyboardInterrupt):
        extract(config)
    check_dropped(path, committed=None)
    assert not any(thread.name == "losa-behind" for thread in threading.enumerate())
    monkeypatch.setattr(ViTBackbone, "__call__", original)
    extract(config)
    whole = tmp_path / "whole.zarr"
    extract(config.model_copy(update={"store": whole}))
    assert tree(path) == tree(whole)


def test_the_words_on_leaving_count_a_shard_that_is_committed_meanwhile(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving, asked, writes = threading.Event(), threading.Event(), [0]

    class Leaving(Share):
        def ends_before(self, writer: StoreWriter, task: ShardTask, row: int) -> bool:
            if (task.shard, row) == (1, 6):
                asked.set()
            try:
                return super().ends_before(writer, task, row)
            finally:
                if asked.is_set():
                    leaving.set()

    def wait(*_: Any) -> None:
        writes[0] += 1
        if writes[0] == 2:  # the last batch of the first shard
            assert leaving.wait(60)

    monkeypatch.setattr(StopRequest, "is_set", property(lambda _: asked.is_set()))
    monkeypatch.setattr("losa.extract.run.Share", Leaving)
    spied(monkeypatch, ShardWriter, "write", wait)
    config = tiny_config(pictures, tmp_path / "s.zarr", batch_size=2, grace=0.0, split=("train",))
    with pytest.raises(StoppedError, match="with 4 of 21 rows done"):
        extract(config)


def check_dropped(path: Path, *, committed: int | None) -> None:
    """Nothing is left of a shard that was not committed, and nobody holds it."""
    commits = list(path.glob(".losa/commits/*/*"))
    assert committed is None or len(commits) == committed
    assert list((path / layout.TMP_FOLDER).iterdir()) == []
    assert list(path.glob(".losa/claims/*/*")) == []
    assert len(list(path.glob("*/tokens/*/c.*"))) == 2 * len(commits)
