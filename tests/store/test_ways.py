"""Claims of losa.store.ways."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from losa.errors import ResourceError, StoreError
from losa.store.ways import BLOCK_BYTES, Ways


def test_a_file_is_read_from_its_start_and_its_size_told(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    data = bytes(range(256)) * (BLOCK_BYTES // 256) + b"the rest"
    (tmp_path / "a/x").write_bytes(data)
    ways = Ways(tmp_path)
    assert ways.read("a/x", 5) == (data[:5], len(data))
    assert ways.whole("a/x") == data
    assert ways.digest("a/x") == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("none", "is missing"),
        ("none/x", "is missing"),
        ("folder", "is not a regular file"),
        ("link", "is a symbolic link"),
        ("way/x", "lies below way, which is a symbolic link"),
        ("way/deeper/x", "lies below way, which is a symbolic link"),
        ("folder/file/x", "lies below folder/file, which is not a folder"),
    ],
)
def test_what_cannot_be_opened_says_why(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / "folder/deeper").mkdir(parents=True)
    for file in ("folder/file", "folder/x", "folder/deeper/x"):
        (tmp_path / file).write_text("a")
    (tmp_path / "way").symlink_to("folder")
    (tmp_path / "link").symlink_to("folder/x")
    for read in (Ways(tmp_path).digest, Ways(tmp_path).whole):
        with pytest.raises(StoreError) as caught:
            read(name)
        assert caught.value.what == what
        assert caught.value.subject == str(tmp_path / name)


@pytest.mark.parametrize("act", ["pread", "lstat"])
def test_a_failing_disk_is_a_resource_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (tmp_path / "a").mkdir()
    (tmp_path / "a/x").write_text("a")
    monkeypatch.setattr(os, act, fail)
    with pytest.raises(ResourceError, match="input/output error"):
        Ways(tmp_path).digest("a/x")
    with pytest.raises(ResourceError, match="input/output error"):
        Ways(tmp_path).read("a/x", 1)
