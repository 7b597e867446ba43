"""Claims of losa.store.space."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from losa.errors import ResourceError
from losa.store import space
from losa.store.plan import SplitPlan
from losa.store.space import bytes_needed, check_room, check_space
from tests.store.build import small_plan


def test_what_is_needed_covers_all_rows_and_one_shard() -> None:
    plan = small_plan()
    assert bytes_needed(plan) >= (28 + plan.shard_rows) * plan.spec.sample_bytes
    assert bytes_needed(plan, 0) == 0


def test_a_store_larger_than_the_disk_is_refused_before_it_begins(tmp_path: Path) -> None:
    stats = os.statvfs(tmp_path)
    rows = stats.f_blocks * stats.f_frsize // small_plan().spec.sample_bytes
    plan = replace(small_plan(), splits={"train": SplitPlan(rows, rows, "")})
    with pytest.raises(
        ResourceError, match=r"B needed, .* [kMG]B free on its disk; free space"
    ) as e:
        check_space(tmp_path / "deep/below/s.zarr", plan)
    assert e.value.exit_code == 6
    check_space(tmp_path / "s.zarr", small_plan())


def test_each_process_has_a_shard_to_spare_less_what_is_written_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, path = small_plan(), tmp_path / "s.zarr"
    sample = 2 * 5 * 6 * 2  # taps, tokens, channels, float16
    for processes, rows in ((1, 28.56 + 8), (2, 28.56 + 16), (9, 28.56 + 28)):
        assert bytes_needed(plan, processes=processes) == int(rows * sample)
    scratch = path / ".losa/tmp"
    scratch.mkdir(parents=True)
    (scratch / "one").write_bytes(bytes(300))
    (scratch / "other").write_bytes(bytes(500))
    needed = int((28.56 + 16) * sample) - 800
    for free in (needed, needed - 1):
        monkeypatch.setattr(space, "free_bytes", lambda _, free=free: free)
        with nullcontext() if free == needed else pytest.raises(ResourceError):
            check_space(path, plan, processes=2)


@pytest.mark.parametrize(
    ("needed", "free", "message"),
    [
        (120_000, 36_864, "120.0 kB needed, 36.9 kB free"),
        (3 * 10**9, 4_096_000, "3.0 GB needed, 4.1 MB free"),
        (900, 0, "0.9 kB needed, 0.0 kB free"),
    ],
)
def test_bytes_are_told_in_units_that_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needed: int, free: int, message: str
) -> None:
    found = os.statvfs_result((4096, 1, 9, 0, free, 9, 9, 9, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: found)
    with pytest.raises(ResourceError, match=message):
        check_room(tmp_path, needed, "free space")


def test_a_place_that_is_not_there_yet_is_the_nearest_folder_above_it(tmp_path: Path) -> None:
    assert space.existing_place(tmp_path / "deep/er/s.zarr") == tmp_path
    assert space.existing_place(tmp_path) == tmp_path
    assert space.free_bytes(tmp_path / "deep/er/s.zarr") > 0
