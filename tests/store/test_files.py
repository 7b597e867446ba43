"""Claims of losa.store.files."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from losa.errors import ResourceError, StoreError
from losa.store import files


def test_write_atomic_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    files.write_atomic(target, b"one")
    files.write_atomic(target, b"two")
    assert target.read_bytes() == b"two"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_write_atomic_keeps_the_old_content_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.json"
    files.write_atomic(target, b"old")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ResourceError, match=r"a\.json: no space left on device; free space"):
        files.write_atomic(target, b"new")
    assert target.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_only_one_of_many_creators_wins_and_its_content_stays(tmp_path: Path) -> None:
    target = tmp_path / "claim"

    def create(number: int) -> bool:
        return files.create_once(target, b"%d" % number, scratch=tmp_path, durable=False)

    with ThreadPoolExecutor(8) as pool:
        for _ in range(25):
            won = list(pool.map(create, range(8)))
            assert sum(won) == 1
            assert int(target.read_bytes()) == won.index(True)
            target.unlink()
    assert list(tmp_path.iterdir()) == []


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(StoreError, match="symbolic link"):
        files.read_file(tmp_path / "link")


def test_a_fifo_is_refused_without_hanging(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StoreError, match="not a regular file"):
        files.read_file(tmp_path / "pipe")


@pytest.mark.parametrize(
    "text",
    ["", "[1]", '{"a": NaN}', '{"a": 1, "a": 2}', '{"a": ', "\x00", '{"a":' + "[" * 100_000],
    ids=["empty", "list", "nan", "twice", "cut", "binary", "deep"],
)
def test_unsound_json_names_its_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(StoreError, match=r"x\.json: is not"):
        files.read_json(tmp_path / "x.json")


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(11))
    with pytest.raises(StoreError, match="11 bytes, at most 10"):
        files.read_file(tmp_path / "big", at_most=10)


def test_a_tag_is_dead_once_its_process_is_gone() -> None:
    code = "from losa.store import files; print(files.owner_tag(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        tag = process.stdout.readline().strip()
        assert not files.tag_is_dead(tag)
        process.kill()
    for _ in range(100):
        if files.tag_is_dead(tag):
            break
        time.sleep(0.01)
    assert files.tag_is_dead(tag)


@pytest.mark.parametrize("tag", ["", "a-b", "1-2-3", "x-y-z-1", "9-9-otherboot-1"])
def test_a_foreign_name_is_never_taken_for_dead(tag: str) -> None:
    assert not files.tag_is_dead(tag)


def test_a_failing_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.json").write_text("{}")

    class Failing(io.BytesIO):
        def __init__(self, handle: int, _: str) -> None:
            super().__init__()
            self._handle = handle

        def fileno(self) -> int:
            return self._handle

        def read(self, _: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdopen", Failing)
    with pytest.raises(ResourceError, match=r"x\.json: input/output error"):
        files.read_file(tmp_path / "x.json")
