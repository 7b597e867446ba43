"""Claims of losa.store.files."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from losa.errors import ResourceError, StoreError
from losa.store import files, system
from losa.store.system import System
from tests.store.build import tree
from tests.store.systems import NoLinks, failing


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

    def fail(*_: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "read", fail)
    with pytest.raises(ResourceError, match=r"x\.json: input/output error"):
        files.read_file(tmp_path / "x.json")


class Synced(System):
    """Notes which files were written, and which of them were synced."""

    def __init__(self, fail: int = 0) -> None:
        self.made: list[Path] = []
        self.fail = fail

    def create(self, path: Path) -> int:
        self.made.append(path)
        return super().create(path)

    def fsync(self, handle: int) -> None:
        if self.fail:
            self.fail -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().fsync(handle)


def test_after_a_sync_that_failed_the_bytes_go_to_a_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = Synced(fail=1)
    monkeypatch.setattr(system, "current", synced)
    files.write_atomic(tmp_path / "a.json", b"new")
    assert tree(tmp_path) == {"a.json": b"new"}
    assert len(set(synced.made)) == 2


def test_a_sync_that_fails_twice_is_an_error_that_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(Synced):
        def sync_file(self, path: Path) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    (tmp_path / "a.json").write_bytes(b"old")
    monkeypatch.setattr(system, "current", Failing(fail=1))
    with pytest.raises(ResourceError, match=r"a\.json: input/output error"):
        files.write_atomic(tmp_path / "a.json", b"new")
    assert tree(tmp_path) == {"a.json": b"old"}


@pytest.mark.parametrize("act", ["create", "write", "close", "rename"])
def test_a_disk_that_fails_is_an_error_that_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    (tmp_path / "a.json").write_bytes(b"old")
    monkeypatch.setattr(system, "current", failing(act, errno.EIO))
    with pytest.raises(ResourceError, match=r"a\.json: input/output error"):
        files.write_atomic(tmp_path / "a.json", b"new")
    assert tree(tmp_path) == {"a.json": b"old"}


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize(
    ("there", "may_replace", "left"),
    [(None, False, "new"), ("new", False, "new"), ("old", True, "new"), ("old", False, "old")],
)
def test_a_name_is_settled_whatever_a_dead_writer_has_left(
    tmp_path: Path, there: str | None, may_replace: bool, left: str, durable: bool
) -> None:
    name, aside = tmp_path / "name", tmp_path / "aside"
    if there is not None:
        name.write_text(there)
    aside.write_text("new")
    inode = (name if left == there else aside).stat().st_ino
    files.settle(aside, name, durable=durable, may_replace=lambda: may_replace)
    assert tree(tmp_path) == {"name": left.encode()}
    assert name.stat().st_ino == inode


def test_an_equal_file_is_kept_without_asking_who_may_replace_it(tmp_path: Path) -> None:
    for name in ("name", "aside"):
        (tmp_path / name).write_text("new")
    files.settle(
        tmp_path / "aside", tmp_path / "name", durable=True, may_replace=lambda: pytest.fail("why")
    )


def test_what_cannot_be_settled_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "aside").write_text("new")
    monkeypatch.setattr(system, "current", failing("link", errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        files.settle(tmp_path / "aside", tmp_path / "name", durable=True, may_replace=bool)
    assert tree(tmp_path) == {}


class Swept(NoLinks):
    """Somebody who seals sweeps our temporary files away, so many times."""

    def __init__(self, times: int) -> None:
        self.times = times

    def place(self, temporary: Path, target: Path) -> None:
        self.sweep(temporary)
        super().place(temporary, target)

    def rename(self, source: Path, target: Path) -> None:
        self.sweep(source)
        super().rename(source, target)

    def sweep(self, temporary: Path) -> None:
        if self.times:
            self.times -= 1
            temporary.unlink()


def test_a_temporary_file_that_was_swept_away_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "current", Swept(files.SWEEPS))
    assert files.create_once(tmp_path / "a", b"1", scratch=tmp_path, durable=False)
    monkeypatch.setattr(system, "current", Swept(files.SWEEPS))
    files.write_atomic(tmp_path / "b", b"2", scratch=tmp_path)
    assert tree(tmp_path) == {"a": b"1", "b": b"2"}


def test_a_sweeper_who_never_ends_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "current", Swept(files.SWEEPS + 1))
    with pytest.raises(ResourceError, match="no such file or directory"):
        files.create_once(tmp_path / "a", b"1", scratch=tmp_path, durable=False)


def test_who_has_sealed_first_has_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Beaten(System):
        def place(self, temporary: Path, target: Path) -> None:
            target.write_bytes(b"theirs")
            temporary.unlink()
            super().place(temporary, target)

    monkeypatch.setattr(system, "current", Beaten())
    assert not files.create_once(tmp_path / "a", b"ours", scratch=tmp_path, durable=False)
    assert tree(tmp_path) == {"a": b"theirs"}


def test_folders_that_somebody_makes_meanwhile_are_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Overtaken(System):
        def mkdir(self, path: Path) -> None:
            path.mkdir()
            super().mkdir(path)

    monkeypatch.setattr(system, "current", Overtaken())
    files.make_folders(tmp_path / "a/b", durable=False)
    assert (tmp_path / "a/b").is_dir()


def test_an_error_that_has_a_name_keeps_it(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="b: is missing"), files.named(tmp_path / "a"):
        files.read_file(tmp_path / "b")


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ResourceError, match="file/x: not a directory"):
        files.read_file(tmp_path / "file/x")


def test_a_process_is_told_apart_where_the_system_tells_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = files.process_space()

    def nothing(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", nothing)
    monkeypatch.setattr(Path, "stat", nothing)
    assert files.boot_id() == "0" * 32
    assert files.process_space.__wrapped__() != known
    assert files.start_time(os.getpid()) == 0
