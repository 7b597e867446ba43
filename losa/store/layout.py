"""Where every byte of a store lies: pure arithmetic on rows, records, shards and file names.

Source: docs/store-format.md, sections "Shards" and "Names".
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import cache
from typing import Final

SHARD_BYTES: Final = 256 * 2**20
MAX_SHARD_ROWS: Final = 1024
ROW_STEP: Final = 64
INDEX_ENTRY_BYTES: Final = 16
CRC_BYTES: Final = 4
ABSENT: Final = 2**64 - 1
CRC32C_POLYNOMIAL: Final = 0x82F63B78


RAW_DTYPES: Final[Mapping[str, str]] = {
    "float16": "<f2",
    "int8": "|i1",
    "bfloat16": "<u2",
    "float32": "<f4",
}
"""What numpy takes a stored value of each store dtype for; bfloat16 as its bits."""

SCALE_DTYPE: Final = "<f2"
"""A token's scale, of int8 stores."""


def rows_per_shard(record_bytes: int) -> int:
    """Rows S of a full shard: the largest multiple of 64 below 256 MiB, at most 1024.

    Records so large that fewer than 64 fit take as many as fit, at least one.

    Example:
        >>> rows_per_shard(302_592), rows_per_shard(723_712), rows_per_shard(11_534_336)
        (832, 320, 23)
    """
    fitting = SHARD_BYTES // record_bytes
    if fitting < ROW_STEP:
        return max(1, fitting)
    return min(MAX_SHARD_ROWS, fitting // ROW_STEP * ROW_STEP)


def shard_count(rows: int, shard_rows: int) -> int:
    """Shards that hold ``rows`` rows."""
    return -(-rows // shard_rows)


def shard_span(shard: int, rows: int, shard_rows: int) -> tuple[int, int]:
    """First row of a shard, and the row after its last."""
    first = shard * shard_rows
    return first, min(rows, first + shard_rows)


def shard_file_bytes(held: int, shard_rows: int, record_bytes: int) -> int:
    """Size of a shard file that holds ``held`` records: payload, index, and the index's crc32c."""
    return held * record_bytes + shard_rows * INDEX_ENTRY_BYTES + CRC_BYTES


@cache
def shard_index(held: int, shard_rows: int, record_bytes: int) -> bytes:
    """The index at the end of a shard file: offset and size per record, then its crc32c.

    Records lie in row order without gaps; entries past ``held`` are absent (2^64 - 1, twice).

    Source: zarr v3 sharding_indexed codec, little-endian, ``index_location`` "end".

    Example:
        >>> len(shard_index(3, 4, 10)), shard_index(3, 4, 10)[16:32] == struct.pack("<QQ", 10, 10)
        (68, True)
    """
    entries = [struct.pack("<QQ", row * record_bytes, record_bytes) for row in range(held)]
    entries += [struct.pack("<QQ", ABSENT, ABSENT)] * (shard_rows - held)
    index = b"".join(entries)
    return index + struct.pack("<I", crc32c(index))


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) of ``data``, the checksum zarr's sharding index carries.

    Plain Python: it only ever sees an index of some kilobytes, once per shape of shard.

    Source: RFC 3720, appendix B.4 (test vectors).

    Example:
        >>> hex(crc32c(bytes(32)))
        '0x8a9136aa'
    """
    table = _crc32c_table()
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


@cache
def _crc32c_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        crc = value
        for _ in range(8):
            crc = crc >> 1 ^ (CRC32C_POLYNOMIAL if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


def tap_name(tap: int) -> str:
    """Name of a tap's arrays: two digits at least, so that names sort by depth.

    Example:
        >>> tap_name(5), tap_name(111)
        ('tap05', 'tap111')
    """
    return f"tap{tap:02d}"


def tokens_path(split: str, tap: int) -> str:
    """Array of a tap's tokens, below the store's root."""
    return f"{split}/tokens/{tap_name(tap)}"


def scale_path(split: str, tap: int) -> str:
    """Array of the scales of a tap's tokens, below the store's root; int8 stores only."""
    return f"{split}/scale/{tap_name(tap)}"


def check_path(split: str, tap: int) -> str:
    """Array of a tap's record checksums, below the store's root."""
    return f"{split}/check/{tap_name(tap)}"


def status_path(split: str) -> str:
    """Array of the rows' status codes, below the store's root."""
    return f"{split}/sample/status"


def tokens_object(split: str, tap: int, shard: int) -> str:
    """The file of one shard of a tap's tokens."""
    return f"{tokens_path(split, tap)}/c.{shard}.0.0"


def scale_object(split: str, tap: int, shard: int) -> str:
    """The file of one shard of the scales of a tap's tokens."""
    return f"{scale_path(split, tap)}/c.{shard}.0"


def check_object(split: str, tap: int, shard: int) -> str:
    """The file of one shard's record checksums."""
    return f"{check_path(split, tap)}/c.{shard}"


def status_object(split: str, shard: int) -> str:
    """The file of one shard's status codes."""
    return f"{status_path(split)}/c.{shard}"


def commit_object(split: str, shard: int) -> str:
    """The commit record of a shard, below the store's root."""
    return f".losa/commits/{split}/{shard:06d}.json"


def claim_object(split: str, shard: int) -> str:
    """The claim of the process that is computing a shard, below the store's root."""
    return f".losa/claims/{split}/{shard:06d}"


def inherited_object(split: str, shard: int) -> str:
    """A shard's commit record in the store that is being extended by more taps."""
    return f"{INHERITED_FOLDER}/{split}/{shard:06d}.json"


def samples_object(split: str) -> str:
    """The samples table of a split, below the store's root."""
    return f".losa/samples/{split}.jsonl"


def statistic_object(tap: int, statistic: str) -> str:
    """The file of one statistic of a tap's channels, below the store's root."""
    return f"calib/{tap_name(tap)}/{statistic}/c.0"


def spare_object(name: str) -> str:
    """The second copy of a file that cannot be derived from others.

    Example:
        >>> spare_object(".losa/plan.json"), spare_object("calib/tap05/mean/c.0")
        ('.losa/spare/plan.json', '.losa/spare/calib/tap05/mean/c.0')
    """
    return f"{SPARE_FOLDER}/{name.removeprefix('.losa/')}"


SPARE_FOLDER: Final = ".losa/spare"
INHERITED_FOLDER: Final = ".losa/inherited"
QUARANTINE_FOLDER: Final = ".losa/quarantine"
UNSYNCED_OBJECT: Final = ".losa/unsynced"
PLAN_OBJECT: Final = ".losa/plan.json"
SEALED_OBJECT: Final = ".losa/sealed.json"
TMP_FOLDER: Final = ".losa/tmp"
ROOT_OBJECT: Final = "zarr.json"
