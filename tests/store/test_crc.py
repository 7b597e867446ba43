"""The checksum of records is zlib's, whoever computes it."""

from __future__ import annotations

import importlib
import sys
import zlib
from collections.abc import Iterator

import numpy as np
import pytest

from losa.store import crc


@pytest.fixture
def without_isal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        for name in ("isal", "isal.isal_zlib"):
            patch.setitem(sys.modules, name, None)
        importlib.reload(crc)
        yield
    importlib.reload(crc)


def test_isal_is_what_an_installation_on_a_common_machine_uses() -> None:
    isal_zlib = pytest.importorskip("isal.isal_zlib", reason="this platform has no wheel of isal")
    assert crc.crc32 is isal_zlib.crc32


@pytest.mark.parametrize("size", [0, 1, 7, 64, 4097, 302592])
@pytest.mark.parametrize("start", [0, 1, 0xFFFFFFFF])
def test_checksum_is_zlibs_for_every_size_and_start(size: int, start: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size + 3, np.uint8)
    for offset in range(3):
        record = data[offset : offset + size].data
        assert crc.crc32(record, start) == zlib.crc32(record, start)


@pytest.mark.usefixtures("without_isal")
def test_without_isal_zlib_computes_the_checksum() -> None:
    assert crc.crc32 is zlib.crc32
