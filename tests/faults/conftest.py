"""What the fault tests share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory where there is one: stores are many, and disks slow."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def unchecked_shapes() -> Iterator[None]:
    """Shapes are checked everywhere else; here it would take most of the time."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
