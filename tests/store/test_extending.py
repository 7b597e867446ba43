"""Claims of losa.store.extending: how an extension begins; how it ends is in its neighbour."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from losa.errors import LockedError, MismatchError, ResourceError, StoreError
from losa.features import StoreDtype
from losa.store import (
    Plan,
    StoreWriter,
    extending,
    layout,
    system,
)
from losa.store.extending import (
    begun_extension,
    extension_of,
    finish_extension,
)
from losa.store.verify import verify_store
from tests.store.build import (
    small_plan,
    tree,
)
from tests.store.larger import ROWS, Unsynced, begun, fill, names, narrow, small
from tests.store.systems import NoLinks, failing

pytestmark = pytest.mark.usefixtures("unsynced")


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize(
    ("taps", "splits"),
    [((1,), ("train",)), ((3,), ("train", "val")), ((1, 3), ("train",)), ((3,), ("val",))],
)
@pytest.mark.parametrize("links", [True, False])
def test_an_extended_store_equals_one_written_in_one_go(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dtype: StoreDtype,
    taps: tuple[int, ...],
    splits: tuple[str, ...],
    links: bool,
) -> None:
    plan = small_plan(ROWS, dtype)
    path = small(tmp_path / "s.zarr", narrow(plan, taps, splits), skipped=(3, 9))
    if not links:
        monkeypatch.setattr(Unsynced, "link", NoLinks.link)
    begun(path, plan)
    fill(extension_of(path), plan, skipped=() if "train" in splits and taps == (1, 3) else (3, 9))
    finish_extension(path)
    assert tree(path) == tree(small(tmp_path / "one/s.zarr", plan, skipped=(3, 9)))
    assert verify_store(path) == []
    assert names(tmp_path) == ["s.zarr"]


def test_shards_that_get_no_more_taps_are_complete_from_the_start(old: Path, whole: Plan) -> None:
    begun(old, narrow(whole, (1,), ("train", "val")))
    with StoreWriter(extension_of(old), durable=False) as writer:
        assert {task.split for task in writer.tasks()} == {"val"}


def test_shards_that_get_more_taps_lack_only_these(old: Path, whole: Plan) -> None:
    begun(old, whole)
    with StoreWriter(extension_of(old), durable=False) as writer:
        missing = {task.split: writer.missing_taps(task) for task in writer.tasks()}
    assert missing == {"train": (3,), "val": (1, 3)}


def as_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "is missing"),
    "cut": (lambda path: os.truncate(path, 7), "is 7 bytes, not 612"),
    "a link": (as_link, "is not a regular file"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_store_is_not_extended(old: Path, whole: Plan, kind: str) -> None:
    act, message = DAMAGE[kind]
    act(old / "train/tokens/tap01/c.1.0.0")
    with pytest.raises(StoreError, match=rf"tap01/c\.1\.0\.0: .*{message}.*repair"):
        begun(old, whole)
    assert names(old.parent) == ["s.zarr"]


def test_a_damaged_commit_record_is_not_handed_on(old: Path, whole: Plan) -> None:
    (old / layout.commit_object("train", 1)).write_bytes(b"{}")
    with pytest.raises(StoreError, match=r"000001\.json: is not the file that was sealed"):
        begun(old, whole)


def test_no_room_for_copies_is_said_before_the_first(
    old: Path, whole: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, plan: Plan) -> None:
        assert plan.spec.taps == (1,)
        raise ResourceError(path, "too little")

    monkeypatch.setattr(Unsynced, "link", NoLinks.link)
    monkeypatch.setattr(extending, "check_space", full)
    with pytest.raises(ResourceError, match="too little"):
        begun(old, whole)
    assert names(old.parent) == ["s.zarr"]


def test_copying_is_told_once(
    old: Path, whole: Plan, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Unsynced, "link", NoLinks.link)
    with caplog.at_level(logging.WARNING, logger=extending.__name__):
        begun(old, whole)
    assert caplog.text.count("no hard links here") == 1


def test_a_failing_disk_is_named_while_files_are_shared(
    old: Path, whole: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "current", failing("link", errno.EIO))
    with pytest.raises(ResourceError, match="input/output error") as caught:
        begun(old, whole)
    assert str(extension_of(old)) in str(caught.value)
    assert names(old.parent) == ["s.zarr"]


def test_an_extension_is_begun_once_and_found_again(old: Path, whole: Plan) -> None:
    assert begun_extension(old, whole) is None
    begun(old, whole)
    found = begun_extension(old, replace(whole, exponents=()))
    assert found == whole
    with pytest.raises(LockedError, match="created by another process"):
        begun(old, whole)
    with pytest.raises(
        MismatchError, match=r"another extension .*features\.taps: \[1\] / \[1, 3\]"
    ):
        begun_extension(old, narrow(whole, (1,), ("train", "val")))
