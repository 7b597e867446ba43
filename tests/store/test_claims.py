"""Claims of losa.store.claims."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from losa.errors import ResourceError
from losa.store import claims as module
from losa.store import files, layout, system
from losa.store.claims import STALE_SECONDS, Claims
from losa.store.system import System
from tests.store.build import begin_store, small_plan, tree
from tests.store.elsewhere import TASK, Elsewhere, claim_path, foreign_claim, here
from tests.store.systems import failing


@pytest.fixture
def root(tmp_path: Path) -> Path:
    begin_store(tmp_path / "s.zarr", small_plan({"train": 8}))
    return tmp_path / "s.zarr"


@pytest.fixture
def ours(root: Path) -> Iterator[Claims]:
    claims = Claims(root)
    yield claims
    claims.close()


def test_a_claim_is_held_until_it_is_released(root: Path, ours: Claims) -> None:
    before = tree(root)
    assert ours.holder(TASK) is None
    assert ours.take(TASK)
    assert ours.holds(TASK)
    assert ours.holder(TASK) == f"process {os.getpid()} on {os.uname().nodename}"
    assert not Claims(root).take(TASK)
    assert not ours.is_free(TASK)
    ours.release(TASK)
    assert not ours.holds(TASK)
    assert tree(root) == before


def test_closing_gives_every_claim_back(root: Path, ours: Claims) -> None:
    ours.take(TASK)
    ours.close()
    assert not claim_path(root).exists()


def test_one_of_many_takers_of_a_dead_claim_gets_it(root: Path) -> None:
    takers = [Claims(root) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            foreign_claim(root, **here(pid=2**22 + 1))
            won = list(pool.map(lambda claims: claims.take(TASK), takers))
            # A taker that comes second may find the name free and the first gone; nobody gets two.
            assert sum(claims.holds(TASK) for claims in takers) == 1
            assert won.count(True) >= 1
            for claims in takers:
                claims.release(TASK)
    assert list((root / layout.TMP_FOLDER).iterdir()) == []


DEAD = {
    "another boot": here(boot="before"),
    "a process that is gone": here(pid=2**22 + 1),
    "a process that began at another time": here(start=1),
    "no number of a process": here(pid="seven"),
}


@pytest.mark.parametrize("name", DEAD)
def test_a_claim_whose_process_is_gone_is_taken_over_at_once(
    root: Path, ours: Claims, name: str
) -> None:
    foreign_claim(root, **DEAD[name])
    assert ours.take(TASK)
    assert ours.holds(TASK)


@pytest.mark.parametrize("content", [b"", b"[7]", b"{", b"\xff", b"[" * 100_000])
def test_a_claim_that_a_power_cut_has_garbled_is_taken_over_at_once(
    root: Path, ours: Claims, content: bytes
) -> None:
    claim_path(root).write_bytes(content)
    assert ours.take(TASK)


def test_a_claim_that_cannot_be_read_is_left_alone(
    root: Path, ours: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign_claim(root)

    def stale(_: Path) -> bytes:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", stale)
        assert not ours.take(TASK)
        assert ours.holder(TASK) is None
    assert claim_path(root).exists()


def test_a_beat_that_stands_still_for_ten_minutes_is_no_life(root: Path) -> None:
    foreign_claim(root)
    there = Elsewhere()
    claims = Claims(root, clock=there.now)
    assert not claims.take(TASK)
    assert not claims.is_free(TASK)
    there.seconds = int(STALE_SECONDS) - 1
    assert not claims.take(TASK)
    there.seconds += 1
    assert claims.take(TASK)
    claims.close()


def test_a_beat_that_was_seen_is_life_and_starts_the_ten_minutes_again(root: Path) -> None:
    foreign_claim(root)
    there = Elsewhere()
    claims = Claims(root, clock=there.now)
    assert not claims.take(TASK)
    there.seconds = 500
    foreign_claim(root, beat="4")
    assert not claims.take(TASK)
    there.seconds = 1099
    assert not claims.take(TASK)
    there.seconds = 1100
    assert claims.take(TASK)
    claims.close()


def test_beats_count_up_and_change_nothing_else(root: Path, ours: Claims) -> None:
    ours.take(TASK)
    before = files.read_json(claim_path(root))
    for _ in range(3):
        ours.beat()
    after = files.read_json(claim_path(root))
    assert [int(before.pop("beat")), int(after.pop("beat"))] == [0, 3]
    assert after == before


def test_a_beat_leaves_a_claim_that_was_taken_over_as_it_is(root: Path, ours: Claims) -> None:
    ours.take(TASK)
    claim_path(root).unlink()
    ours.beat()
    assert not claim_path(root).exists()
    foreign_claim(root)
    before = claim_path(root).read_bytes()
    ours.beat()
    assert claim_path(root).read_bytes() == before


def test_a_claim_beats_by_itself_while_it_is_held(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.0)
    beaten = Event()
    claims = Claims(root)
    monkeypatch.setattr(claims, "beat", beaten.set)
    claims.take(TASK)
    assert beaten.wait(10)
    claims.close()


def test_what_is_not_ours_any_more_is_not_released(root: Path, ours: Claims) -> None:
    ours.take(TASK)
    claim_path(root).unlink()
    theirs = foreign_claim(root)
    ours.release(TASK)
    assert files.read_json(claim_path(root)) == theirs


def test_a_claim_that_somebody_else_took_over_first_is_not_taken(
    root: Path, ours: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign_claim(root, **here(boot="before"))
    monkeypatch.setattr(system, "current", failing("rename", errno.ENOENT))
    assert not ours.take(TASK)


def test_a_claim_that_turns_out_to_be_alive_is_put_back(
    root: Path, ours: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = here(tag="of another process")

    class Overtaken(System):
        """Between the look at a claim and its renaming, another process takes it over."""

        def rename(self, source: Path, target: Path) -> None:
            source.write_text(json.dumps(fresh))
            super().rename(source, target)

    foreign_claim(root, **here(boot="before"))
    monkeypatch.setattr(system, "current", Overtaken())
    assert not ours.take(TASK)
    assert files.read_json(claim_path(root)) == fresh


def test_whoever_is_taken_for_dead_can_publish_nothing_more(root: Path) -> None:
    foreign_claim(root)
    scratch = root / layout.TMP_FOLDER
    for name in ("7-1-y-4", "7-1-y-5", "7-1-yy-4", "8-1-y-4"):
        (scratch / name).write_bytes(b"half a shard")
    there = Elsewhere()
    claims = Claims(root, clock=there.now)
    assert not claims.take(TASK)
    there.seconds = 600
    assert claims.take(TASK)
    claims.close()
    assert sorted(item.name for item in scratch.iterdir()) == ["7-1-yy-4", "8-1-y-4"]


@pytest.mark.parametrize("act", ["create", "link", "rename"])
def test_a_disk_that_fails_is_named(
    root: Path, ours: Claims, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    foreign_claim(root, **here(boot="before"))
    monkeypatch.setattr(system, "current", failing(act, errno.EIO))
    with pytest.raises(ResourceError, match=r"claims/train/000000: input/output error"):
        ours.take(TASK)


def test_a_claim_that_cannot_be_removed_is_no_longer_ours(
    root: Path, ours: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours.take(TASK)
    monkeypatch.setattr(system, "current", failing("unlink", errno.EROFS))
    ours.release(TASK)
    assert not ours.holds(TASK)
