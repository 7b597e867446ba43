"""One trained sweep for all tests of reports; they only read it, or copy it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report.made import trained_sweep


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_sweep(tmp_path_factory.mktemp("report") / "sweep")
