"""Claims of losa.store.layout."""

from __future__ import annotations

import struct

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from losa.store import layout

MIB = 2**20


@settings(deadline=None)  # of a machine that does something else too
@given(st.integers(min_value=1, max_value=2**30))
def test_a_shard_is_the_largest_multiple_of_64_rows_below_256_mib_and_1024(record: int) -> None:
    rows = layout.rows_per_shard(record)
    if record * 64 > 256 * MIB:
        assert rows == max(1, 256 * MIB // record)
    else:
        assert rows % 64 == 0
        assert rows <= 1024
        assert rows * record <= 256 * MIB
        assert rows == 1024 or (rows + 64) * record > 256 * MIB


@settings(deadline=None)  # of a machine that does something else too
@given(rows=st.integers(1, 5000), shard_rows=st.integers(1, 700))
def test_shards_cover_every_row_once_in_order(rows: int, shard_rows: int) -> None:
    spans = [
        layout.shard_span(shard, rows, shard_rows)
        for shard in range(layout.shard_count(rows, shard_rows))
    ]
    assert [row for span in spans for row in range(*span)] == list(range(rows))


@settings(deadline=None)  # of a machine that does something else too
@given(st.binary(max_size=300))
def test_crc32c_agrees_with_googles_library(data: bytes) -> None:
    assert layout.crc32c(data) == google_crc32c.value(data)


def test_index_names_each_record_and_marks_absent_ones() -> None:
    index = layout.shard_index(2, 3, 10)
    absent = 2**64 - 1
    assert struct.unpack("<6Q", index[:48]) == (0, 10, 10, 10, absent, absent)
    assert struct.unpack("<I", index[48:])[0] == google_crc32c.value(index[:48])
    assert layout.shard_file_bytes(2, 3, 10) == 20 + len(index)


@pytest.mark.parametrize(("tap", "name"), [(0, "tap00"), (39, "tap39"), (128, "tap128")])
def test_tap_names_have_two_digits_at_least(tap: int, name: str) -> None:
    assert layout.tap_name(tap) == name
