"""Claims of losa.store.shardfile."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from losa.errors import ResourceError, StoreError
from losa.store.shardfile import FileShard, Folders, MappedShard, ShardTable
from tests.store.build import small_plan, small_store

FEW_DESCRIPTORS = """
import os, resource, sys
import numpy as np
from losa.store import open_store
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
store = open_store(sys.argv[1])
out = np.zeros((2, 30, 5, 6), "<f2")
for _ in range(3):
    for name in store.splits:
        store.split(name).read_into(np.arange(30), (1, 3), out)
taken = []
try:
    while True:
        taken.append(os.dup(0))
except OSError:
    pass
for name in store.splits:
    store.split(name).read_into(np.arange(30)[::-1].copy(), (1, 3), out)
print(len(taken))
"""


def test_many_shards_of_many_splits_are_read_with_few_descriptors(tmp_path: Path) -> None:
    plan = small_plan({"train": 30, "val": 30, "test": 30}, shard_rows=1)
    store = small_store(tmp_path / "s.zarr", plan)
    done = subprocess.run(
        [sys.executable, "-c", FEW_DESCRIPTORS, store],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # The table and what Python itself has open are all that was taken before.
    assert int(done.stdout) >= 64 - 16 - 16


@pytest.mark.parametrize("places", [[(0, 2)], [(0, 2), (1, 0)], [(1, 1)]])
def test_records_are_copied_from_the_file_and_from_its_mapping(
    tmp_path: Path, places: list[tuple[int, int]]
) -> None:
    content = np.arange(24, dtype=np.uint8).reshape(3, 8)
    (tmp_path / "c").write_bytes(content.tobytes())
    file = FileShard(tmp_path / "c", 8)
    for shard in (file, file.mapped(3)):
        records = np.zeros((2 if len(places) > 1 or places[0][0] else 1, 8), np.uint8)
        shard.copy(places, records)
        for position, slot in places:
            assert records[position].tolist() == content[slot].tolist()


def test_a_failing_disk_is_a_resource_error_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c").write_bytes(bytes(8))
    file = FileShard(tmp_path / "c", 8)

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(ResourceError, match=r"/c: input/output error"):
        file.copy([(0, 0)], np.zeros((1, 8), np.uint8))


def test_a_file_that_ends_early_is_damage(tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(bytes(12))
    with pytest.raises(StoreError, match="ended while it was read"):
        FileShard(tmp_path / "c", 8).copy([(0, 1)], np.zeros((1, 8), np.uint8))


def test_a_table_makes_room_once_and_passes_other_errors_on() -> None:
    table, calls = ShardTable(8), []

    def lacking(code: int) -> int:
        calls.append(code)
        raise ResourceError("c", "no") from OSError(code, os.strerror(code))

    for code, tries in ((errno.EMFILE, 2), (errno.EIO, 1)):
        calls.clear()
        with pytest.raises(ResourceError):
            table.with_room(lambda code=code: lacking(code))  # type: ignore[misc]  # always raises
        assert len(calls) == tries


def test_a_folder_that_is_a_link_is_named(tmp_path: Path) -> None:
    (tmp_path / "real/below").mkdir(parents=True)
    (tmp_path / "s").mkdir()
    (tmp_path / "s/train").symlink_to(tmp_path / "real")
    with pytest.raises(StoreError, match=r"s/train: is a symbolic link"):
        Folders(tmp_path / "s").check("train/below/c.0")
    assert Folders(tmp_path).check("real/below/c.0") == tmp_path / "real/below/c.0"


def test_a_file_that_cannot_be_mapped_is_a_resource_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c").write_bytes(bytes(8))
    file = FileShard(tmp_path / "c", 8)

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(mmap, "mmap", fail)
    with pytest.raises(ResourceError, match="/c: cannot allocate memory"):
        file.mapped(1)


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "train").write_bytes(b"")
    with pytest.raises(ResourceError, match="train/tokens: not a directory"):
        Folders(tmp_path).check("train/tokens/c.0")


def test_a_descriptor_that_cannot_be_shared_is_a_resource_error(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="/c: bad file descriptor"):
        FileShard(tmp_path / "c", 8, handle=10**6)


def test_a_table_lets_go_of_the_shard_used_longest_ago() -> None:
    table, made = ShardTable(2), []

    def make(number: int) -> MappedShard:
        made.append(number)
        return MappedShard(Path("c"), mmap.mmap(-1, 1), np.zeros((1, 1), np.uint8), 1)

    for number in (0, 1, 0, 2, 0, 1):
        table.take((str(number), False), lambda number=number: make(number))  # type: ignore[misc]  # bound now
    assert made == [0, 1, 2, 1]
    table.discard(("1", False))
    table.take(("1", False), lambda: make(1))
    assert made == [0, 1, 2, 1, 1]
