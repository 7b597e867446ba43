"""Claims of losa.live.doctor."""

from __future__ import annotations

from pathlib import Path

import pytest

from losa.errors import ResourceError
from losa.live.doctor import PACKAGES, examine


def test_every_matter_is_found_and_the_disk_is_measured(tmp_path: Path) -> None:
    findings = {item["what"]: item for item in examine(tmp_path)}
    assert all(findings[name]["ok"] for name in PACKAGES)
    assert findings["disk write"]["found"].endswith("GB/s with fsync")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named() -> None:
    with pytest.raises(ResourceError, match="/proc"):
        examine(Path("/proc"))


@pytest.mark.parametrize("name", ["nowhere", "x" * 300, "a\0b"])
def test_a_place_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ResourceError, match=str(tmp_path)) as caught:
        examine(tmp_path / name)
    assert caught.value.exit_code == 6
    assert str(caught.value).isprintable()
