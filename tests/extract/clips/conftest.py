"""The golden clips, made once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.extract.clips.golden_clips import GOLDEN, make


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden-clips")
    for name, how in GOLDEN.items():
        make(folder / name, how)
    return folder
