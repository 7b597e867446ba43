"""What the benchmarks' tests share: a small spec, and results that land in a folder of the test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import record
from losa.features import FeatureSpec, TokenGrid

Published = Callable[[str], dict[str, Any]]


@pytest.fixture
def toy() -> FeatureSpec:
    """Four taps, 5 tokens, 8 channels."""
    return FeatureSpec("toy", (2, 5, 8, 11), TokenGrid(2, 2, prefix=1), 8)


@pytest.fixture
def published(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Published:
    """The document that a benchmark has written, which is also the last line of its stdout."""
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")

    def read(name: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((tmp_path / "results" / f"{name}.json").read_text())
        assert json.loads(capsys.readouterr().out.splitlines()[-1]) == document
        return document

    return read
