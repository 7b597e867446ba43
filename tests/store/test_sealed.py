"""Claims of losa.store.sealed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from losa.errors import StoreError
from losa.store import files, layout, open_store
from losa.store.sealed import SealedFiles, as_sealed
from tests.store.build import small_plan, small_store

CHECK = layout.check_object("train", 1, 0)
TOKENS = layout.tokens_object("train", 1, 0)
COMMIT = layout.commit_object("train", 0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_store(tmp_path_factory.mktemp("sealed") / "s.zarr")


@pytest.fixture
def sealed(whole: Path, tmp_path: Path) -> SealedFiles:
    return open_store(Path(shutil.copytree(whole, tmp_path / "s.zarr"))).files


def test_a_file_is_what_was_sealed_or_an_error(sealed: SealedFiles) -> None:
    assert sealed.read_small(COMMIT) == (sealed.path / COMMIT).read_bytes()
    (sealed.path / COMMIT).write_bytes(b"{}")
    with pytest.raises(StoreError, match=r"000000\.json: is not the file that was sealed; run"):
        sealed.read_small(COMMIT)
    with pytest.raises(StoreError, match="x: is not the file that was sealed"):
        as_sealed(Path("x"), "x", b"", {})


def test_a_commit_record_is_read_once(sealed: SealedFiles) -> None:
    record = sealed.commit("train", 0)
    (sealed.path / COMMIT).unlink()
    assert sealed.commit("train", 0) is record


def test_a_file_of_a_shard_is_what_was_committed_or_an_error(sealed: SealedFiles) -> None:
    assert len(sealed.checks("train", 1, 0)) == 8
    (sealed.path / CHECK).write_bytes(bytes(32))
    with pytest.raises(StoreError, match=r"check/tap01/c\.0: is not the file that was committed"):
        sealed.checks("train", 1, 0)
    with pytest.raises(StoreError, match="is not the file that was committed"):
        sealed.committed("train", 0, "zarr.json")


def test_a_shard_of_another_size_is_not_opened(sealed: SealedFiles) -> None:
    record_bytes = small_plan().spec.record_bytes
    assert sealed.open_shard(TOKENS, 8, record_bytes).nbytes == 8 * 60 + 8 * 16 + 4
    with pytest.raises(StoreError, match=r"c\.0\.0\.0: is 612 bytes, not 552"):
        sealed.open_shard(TOKENS, 7, record_bytes)


def test_the_last_shard_holds_what_is_left(sealed: SealedFiles) -> None:
    assert [sealed.held("train", shard) for shard in range(3)] == [8, 8, 4]
    assert sealed.shard_rows("train") == 8


def test_status_is_the_seals_and_needs_no_file_of_a_shard(sealed: SealedFiles) -> None:
    shutil.rmtree(sealed.path / "train")
    assert sealed.status("train").tolist() == [1] * 20


def with_skipped(sealed: SealedFiles, skipped: Any) -> SealedFiles:
    seal = {"files": {}, "splits": {"train": {"skipped": skipped}}}
    return SealedFiles(sealed.path, sealed.plan, seal)


def test_skipped_rows_have_the_code_of_their_reason(sealed: SealedFiles) -> None:
    status = with_skipped(sealed, [[3, 2], [19, 8]]).status("train")
    assert status[[3, 19]].tolist() == [2, 8]
    assert np.count_nonzero(status == 1) == 18


UNSOUND: dict[str, Any] = {
    "no list": 7,
    "no pairs": [[1, 2, 3]],
    "a row beyond": [[20, 2]],
    "a row before": [[-1, 2]],
    "a code that means whole": [[0, 1]],
    "a code beyond a byte": [[0, 258]],
    "a code beyond an integer": [[0, 2**70]],
    "text": [["a", "b"]],
    "nothing": None,
}


@pytest.mark.parametrize("name", UNSOUND)
def test_a_seal_that_skips_what_no_writer_skips_is_damaged(sealed: SealedFiles, name: str) -> None:
    with pytest.raises(StoreError, match=r"sealed\.json: does not say which rows of train"):
        with_skipped(sealed, UNSOUND[name]).status("train")


def test_a_column_that_is_gone_is_named(sealed: SealedFiles) -> None:
    (sealed.path / "train/sample/label/c.0").unlink()
    with pytest.raises(StoreError, match=r"label/c\.0: is missing"):
        sealed.column("train", "label", "<i4")


def test_damage_names_the_file_and_the_remedy(sealed: SealedFiles) -> None:
    error = sealed.damage(TOKENS, "is odd")
    assert str(error).endswith(
        f"{TOKENS}: is odd; run losa verify on the store; losa repair mends what it names"
    )


def forged(sealed: SealedFiles, name: str, data: bytes) -> SealedFiles:
    """The files with another content of one, for which a forged seal vouches."""
    (sealed.path / name).write_bytes(data)
    digests = {**sealed.sealed["files"], name: files.sha256(data)}
    return SealedFiles(sealed.path, sealed.plan, {**sealed.sealed, "files": digests})


ORDER = "train/sample/source_index/c.0"
TABLE = layout.samples_object("train")
MEAN = layout.statistic_object(1, "mean")
Question = Callable[[SealedFiles], object]
FORGED: dict[str, tuple[str, bytes, Question, str]] = {
    "a column too short": (
        "train/sample/label/c.0",
        bytes(79),
        lambda found: found.column("train", "label", "<i4"),
        "is 79 bytes, not 80",
    ),
    "a sample beyond": (
        ORDER,
        np.arange(1, 21).tobytes(),
        lambda found: found.column("train", "source_index", "<i8"),
        "is no order of the samples",
    ),
    "a sample before": (
        ORDER,
        np.arange(-1, 19).tobytes(),
        lambda found: found.column("train", "source_index", "<i8"),
        "is no order of the samples",
    ),
    "a sample of numbers": (
        TABLE,
        b"[1,2,3]\n" * 20,
        lambda found: found.samples("train"),
        "is not the plan's table of samples",
    ),
    "no sample": (TABLE, b"", lambda found: found.samples("train"), "is not the plan's table"),
    "a row of one": (TABLE, b"7\n" * 20, lambda found: found.samples("train"), "is not the plan's"),
    "a statistic too long": (MEAN, bytes(28), lambda found: found.statistic(1, "mean"), "is 28 by"),
    "a commit of nothing": (
        COMMIT,
        b"{}\n",
        lambda found: found.commit("train", 0),
        "is no commit record",
    ),
    "a commit of numbers": (
        COMMIT,
        b'{"objects":{"a":1}}\n',
        lambda found: found.checks("train", 1, 0),
        "is no commit record",
    ),
}


@pytest.mark.parametrize("name", FORGED)
def test_what_a_forged_seal_vouches_for_is_damage_all_the_same(
    sealed: SealedFiles, name: str
) -> None:
    file, data, question, what = FORGED[name]
    with pytest.raises(StoreError, match=what) as caught:
        question(forged(sealed, file, data))
    assert caught.value.subject == str(sealed.path / file)


LINKS: list[Callable[[Path], Path]] = [lambda root: root / "train", lambda root: root / ".losa"]


@pytest.mark.parametrize("folder", LINKS)
def test_no_link_is_followed(whole: Path, tmp_path: Path, folder: Callable[[Path], Path]) -> None:
    path = Path(shutil.copytree(whole, tmp_path / "s.zarr"))
    files = open_store(path).files
    folder(path).rename(tmp_path / "aside")
    folder(path).symlink_to(tmp_path / "aside")
    with pytest.raises(StoreError, match="is a symbolic link"):
        files.checks("train", 1, 0)
