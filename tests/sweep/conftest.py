"""What the tests of sweeps share."""

from __future__ import annotations

import pytest

from tests.adapt.memory_store import MemoryStore, separable_store


@pytest.fixture(name="store")
def fixture_store() -> MemoryStore:
    return separable_store({"train": 48, "val": 16, "test": 16})
