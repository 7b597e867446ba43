"""Claims of losa.store.space."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from losa.errors import ResourceError
from losa.store.plan import SplitPlan
from losa.store.space import bytes_needed, check_space
from tests.store.build import small_plan


def test_what_is_needed_covers_all_rows_and_one_shard() -> None:
    plan = small_plan()
    assert bytes_needed(plan) >= (28 + plan.shard_rows) * plan.spec.sample_bytes
    assert bytes_needed(plan, 0) == 0


def test_a_store_larger_than_the_disk_is_refused_before_it_begins(tmp_path: Path) -> None:
    stats = os.statvfs(tmp_path)
    rows = stats.f_blocks * stats.f_frsize // small_plan().spec.sample_bytes
    plan = replace(small_plan(), splits={"train": SplitPlan(rows, rows, "")})
    with pytest.raises(ResourceError, match=r"GB needed, .* GB free on its disk; free space") as e:
        check_space(tmp_path / "deep/below/s.zarr", plan)
    assert e.value.exit_code == 6
    check_space(tmp_path / "s.zarr", small_plan())
