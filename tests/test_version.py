"""Claims of losa.version."""

from __future__ import annotations

import re
from pathlib import Path

import losa
from losa.version import __version__


def test_the_version_is_a_plain_release_and_the_packages_own() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert losa.__version__ == __version__


def test_the_changelog_has_a_heading_for_the_version() -> None:
    text = (Path(__file__).parents[1] / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## .*\b{re.escape(__version__)}\b", text, re.MULTILINE)
