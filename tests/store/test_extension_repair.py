"""Claims of losa.store.repair and losa.store.verify about extensions that were not finished."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from losa.store import layout, system
from losa.store.extending import extension_of, finish_extension
from losa.store.repair import repair_store
from losa.store.verify import verify_store
from tests.store import larger
from tests.store.build import small_plan, tree

Damage = Callable[[Path], None]


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "current", larger.Unsynced())


def kept(path: Path) -> dict[str, bytes]:
    """Every file of a store but those that were set aside."""
    everything = tree(path)
    return {name: everything[name] for name in everything if "/quarantine/" not in name}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.fixture
def extension(tmp_path: Path) -> Path:
    """An extension by a tap, one of whose shards is committed."""
    whole = small_plan(larger.ROWS)
    path = larger.small(tmp_path / "s.zarr", larger.narrow(whole, (1,), ("train", "val")))
    larger.begun(path, whole)
    larger.fill(extension_of(path), whole, shards=1)
    return extension_of(path)


@pytest.mark.parametrize("shard", [0, 1])
@pytest.mark.parametrize(
    "kind", ["tokens/tap01/c.{}.0.0", "check/tap01/c.{}", "sample/status/c.{}"]
)
@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_a_damaged_file_that_an_extension_inherited_is_computed_again(
    extension: Path, tmp_path: Path, damage: Damage, kind: str, shard: int
) -> None:
    whole = small_plan(larger.ROWS)
    victim = extension / "train" / kind.format(shard)
    shutil.copy(victim, tmp_path / "copy")
    victim.unlink()
    (tmp_path / "copy").rename(victim)
    damage(victim)
    assert victim.relative_to(extension).as_posix() in [p.path for p in verify_store(extension)]
    done = repair_store(extension, act=True)
    assert ("train", shard) in done.extract or shard == 0
    larger.fill(extension, whole)
    finish_extension(extension.with_name("s.zarr"))
    path = extension.with_name("s.zarr")
    assert kept(path) == tree(larger.small(tmp_path / "one/s.zarr", whole))
    assert verify_store(path) == []


@pytest.mark.parametrize("content", [b"{}", b"", b'{"objects":{}}\n'])
def test_a_damaged_record_that_an_extension_inherited_is_set_aside(
    extension: Path, tmp_path: Path, content: bytes
) -> None:
    whole, name = small_plan(larger.ROWS), layout.inherited_object("train", 1)
    (extension / name).unlink()
    (extension / name).write_bytes(content)
    assert name in [problem.path for problem in verify_store(extension)]
    repair_store(extension, act=True)
    assert (extension / layout.QUARANTINE_FOLDER / "0001" / name).exists()
    larger.fill(extension, whole)
    assert kept(extension) == tree(larger.small(tmp_path / "one/s.zarr", whole))


def test_a_link_in_place_of_the_inherited_records_is_set_aside(
    extension: Path, tmp_path: Path
) -> None:
    whole, folder = small_plan(larger.ROWS), extension / layout.INHERITED_FOLDER
    folder.rename(tmp_path / "aside")
    folder.symlink_to(tmp_path / "aside")
    commit = extension / layout.commit_object("train", 0)
    commit.write_bytes(b"{}")
    repair_store(extension, act=True)
    larger.fill(extension, whole)
    assert kept(extension) == tree(larger.small(tmp_path / "one/s.zarr", whole))


def test_a_sound_extension_needs_nothing(extension: Path) -> None:
    assert [problem.path for problem in verify_store(extension)] == [layout.SEALED_OBJECT]
    assert repair_store(extension, act=True).actions == ()
