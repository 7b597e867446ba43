"""Claims of losa.store.lock."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from losa.errors import LockedError, ResourceError
from losa.store import lock


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / ".losa").mkdir()
    return tmp_path


def test_writers_share_the_lock(root: Path) -> None:
    with lock.shared(root), lock.shared(root):
        pass


def test_nobody_mends_what_somebody_writes(root: Path) -> None:
    with (
        lock.shared(root),
        pytest.raises(LockedError, match=r"is being written, repaired or cleaned; wait") as caught,
        lock.alone(root),
    ):
        pass
    assert caught.value.exit_code == 7


def test_nobody_writes_or_mends_what_somebody_mends(root: Path) -> None:
    with lock.alone(root):
        with pytest.raises(LockedError, match="is being repaired or cleaned"), lock.shared(root):
            pass
        with pytest.raises(LockedError, match="is being written, repaired"), lock.alone(root):
            pass


def test_the_lock_is_free_once_its_holder_has_failed(root: Path) -> None:
    with pytest.raises(KeyboardInterrupt), lock.alone(root):
        raise KeyboardInterrupt
    with lock.alone(root):
        pass


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_store_that_another_one_replaced_meanwhile_is_not_locked(
    root: Path, monkeypatch: pytest.MonkeyPatch, comes_back: bool
) -> None:
    real = fcntl.flock

    def replaced_first(handle: int, kind: int) -> None:
        (root / ".losa").rename(root / "aside")
        if comes_back:
            (root / ".losa").mkdir()
        real(handle, kind)

    monkeypatch.setattr(fcntl, "flock", replaced_first)
    with pytest.raises(LockedError, match="moved or replaced"), lock.alone(root):
        pass


def test_locking_leaves_nothing_behind(root: Path) -> None:
    with lock.alone(root):
        pass
    assert list(root.rglob("*")) == [root / ".losa"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF])
def test_a_file_system_without_locks_is_written_all_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(fcntl, "flock", raising(number))
    with lock.shared(root), lock.alone(root):
        pass


def test_a_lock_that_fails_otherwise_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", raising(errno.EIO))
    with pytest.raises(ResourceError, match="input/output error"), lock.shared(root):
        pass


def test_what_is_no_store_cannot_be_locked(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"\.losa: no such file"), lock.shared(tmp_path):
        pass


def raising(number: int) -> object:
    """A function that always fails in one way."""

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_a_turn_by_file_is_given_to_one_at_a_time_and_leaves_no_file(tmp_path: Path) -> None:
    file = tmp_path / "turn"
    with lock.turn_by_file(file) as is_first, lock.turn_by_file(file) as is_second:
        assert (is_first, is_second) == (True, False)
    assert not file.exists()
    with lock.turn_by_file(file) as is_free:
        assert is_free


def test_a_turn_by_a_file_that_was_removed_meanwhile_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, flock = tmp_path / "turn", fcntl.flock

    def late(handle: int, kind: int) -> None:
        file.unlink()
        flock(handle, kind)

    monkeypatch.setattr(fcntl, "flock", late)
    with lock.turn_by_file(file) as is_ours:
        assert not is_ours


def test_a_turn_is_given_to_one_at_a_time(root: Path) -> None:
    with lock.turn(root) as is_first, lock.turn(root) as is_second:
        assert is_first
        assert not is_second
    with lock.turn(root) as is_free:
        assert is_free


def test_a_turn_by_a_file_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(ResourceError, match=r"nowhere/turn: no such file") as caught,
        lock.turn_by_file(tmp_path / "nowhere/turn"),
    ):
        pass
    assert caught.value.exit_code == 6
