"""The checksum of records: CRC-32 as zlib defines it, by ISA-L where that is installed.

Both say the same of the same bytes, and both let other threads run meanwhile; ISA-L is an order of
magnitude faster (docs/decisions/0011-crc-by-isal.md), and has no wheel for some platforms.
"""

from __future__ import annotations

try:
    from isal.isal_zlib import crc32
except ImportError:
    from zlib import crc32

__all__ = ["crc32"]
