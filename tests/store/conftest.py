"""What tests of a store's extension start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from losa.store import Plan, system
from tests.store.build import small_plan
from tests.store.larger import ROWS, Unsynced, narrow, small


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disk writes that are not synced: what is claimed hangs on no power cut."""
    monkeypatch.setattr(system, "current", Unsynced())


@pytest.fixture
def whole() -> Plan:
    return small_plan(ROWS)


@pytest.fixture
def old(whole: Plan, tmp_path: Path) -> Path:
    """A sealed store of tap 1 and the split train."""
    return small(tmp_path / "s.zarr", narrow(whole, (1,), ("train",)))
