"""Stores of strangers, of later versions and of unlucky copies: one line of exit 4, or they work.

Rows 40 to 46 of the matrix of bad input. ``sealed again`` is what a stranger does: the seal fits.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from losa.errors import LosaError, StoreError
from losa.features import StoreDtype
from losa.store import files, layout, open_store, system
from losa.store.seal import seal_digest
from losa.store.verify import verify_store
from tests.faults.content import (
    look,
    refusals,
    rich_content,
    seal_again,
    untrue,
    written,
)
from tests.faults.processes import HookedSystem
from tests.store.build import tree

Damage = Callable[[Path], None]
TOKENS: Final = layout.tokens_object("train", 1, 0)
OTHER: Final = layout.tokens_object("train", 1, 1)
ARRAY: Final = "train/tokens/tap01/zarr.json"
LABELS: Final = "train/sample/label/c.0"
TABLE: Final = layout.samples_object("train")
DEEP: Final = b'{"a":' * 100_000


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("hostile") / "s.zarr", rich_content())


@pytest.fixture
def store(sound: Path, memory: Path) -> Path:
    return Path(shutil.copytree(sound, memory / "s.zarr"))


def complaints(path: Path) -> list[LosaError]:
    """What a reading complains of; anything but a sound complaint is raised."""
    found = refusals(look(path))
    assert all("\n" not in str(error) for error in found)
    return found


def edited(name: str, *place: str, value: Any) -> Damage:
    """Another value in a JSON file."""

    def act(path: Path) -> None:
        document = json.loads((path / name).read_bytes())
        inner = document
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        (path / name).write_bytes(files.canonical_json(document))

    return act


def replaced(name: str, change: Callable[[bytes], bytes]) -> Damage:
    """Other bytes in a file."""
    return lambda path: void((path / name).write_bytes(change((path / name).read_bytes())))


def void(_: object) -> None:
    """Nothing."""


def of_version_2(path: Path) -> None:
    """As zarr wrote it of old, with a pickle in it."""
    folder = (path / ARRAY).parent
    (path / ARRAY).unlink()
    meta = {"zarr_format": 2, "shape": [7, 5, 6], "dtype": "|O", "filters": [{"id": "pickle"}]}
    (folder / ".zarray").write_text(json.dumps(meta))


def link(path: Path) -> None:
    (path / TOKENS).unlink()
    (path / TOKENS).symlink_to("/etc/hostname")


def fifo(path: Path) -> None:
    (path / TOKENS).unlink()
    os.mkfifo(path / TOKENS)


def swap(path: Path) -> None:
    data = (path / TOKENS).read_bytes()
    (path / TOKENS).write_bytes((path / OTHER).read_bytes())
    (path / OTHER).write_bytes(data)


def of_another_store(path: Path) -> None:
    other = written(path.parent / "other.zarr", rich_content("float32"))
    shutil.copy(other / TOKENS, path / TOKENS)


UNSOUND: dict[str, tuple[str, Damage]] = {
    "41 no commit": (
        layout.commit_object("train", 0),
        lambda p: (p / layout.commit_object("train", 0)).unlink(),
    ),
    "41 no shard": (TOKENS, lambda p: (p / TOKENS).unlink()),
    "41 empty shard": (TOKENS, replaced(TOKENS, lambda _: b"")),
    "41 cut shard": (TOKENS, replaced(TOKENS, lambda data: data[:-1])),
    "41 flipped bit": (TOKENS, replaced(TOKENS, lambda data: bytes([data[0] ^ 1]) + data[1:])),
    "41 of another store": (TOKENS, of_another_store),
    "41 swapped": (TOKENS, swap),
    "42 empty": (ARRAY, replaced(ARRAY, lambda _: b"")),
    "42 cut": (ARRAY, replaced(ARRAY, lambda data: data[:40])),
    "42 huge": (ARRAY, edited(ARRAY, "shape", value=[7 * 10**9, 5, 6])),
    "42 dtype": (ARRAY, edited(ARRAY, "data_type", value="float64")),
    "42 codec": (ARRAY, edited(ARRAY, "codecs", value=[{"name": "pickle"}])),
    "42 fill value": (ARRAY, edited(ARRAY, "fill_value", value=1)),
    "42 version 2": (ARRAY, of_version_2),
    "42 NaN": (ARRAY, replaced(ARRAY, lambda data: data.replace(b"{", b'{"a":NaN,', 1))),
    "42 deep": (ARRAY, replaced(ARRAY, lambda _: DEEP)),
    "42 deep root": (layout.ROOT_OBJECT, replaced(layout.ROOT_OBJECT, lambda _: DEEP)),
    "43 plan": (layout.PLAN_OBJECT, edited(layout.PLAN_OBJECT, "identity", "order_seed", value=7)),
    "43 seal": (layout.SEALED_OBJECT, edited(layout.SEALED_OBJECT, "plan", value="0" * 64)),
    "43 fewer samples": (TABLE, replaced(TABLE, lambda data: data[: data.rindex(b"[")])),
    "43 labels": (LABELS, replaced(LABELS, lambda data: data[::-1])),
    "44 a link": (TOKENS, link),
    "44 a FIFO": (TOKENS, fifo),
}
HARMLESS: Final = ("42 fill value", "42 version 2", "42 empty", "42 cut", "42 NaN", "42 deep")
"""What raw records are read without: the reader need not mind, verification does."""


@pytest.mark.parametrize("name", UNSOUND)
def test_an_unsound_store_is_named_and_never_read_wrongly(
    sound: Path, store: Path, name: str
) -> None:
    file, damage = UNSOUND[name]
    damage(store)
    assert file in [problem.path for problem in verify_store(store)]
    found = complaints(store)
    assert {error.exit_code for error in found} == ({4} if name not in HARMLESS else set())
    assert untrue(look(store), look(sound)) == []


@pytest.mark.parametrize("name", ["extra.bin", "train/tokens/tap01/c.9.0.0", "train/tokens/tap09"])
def test_an_extra_file_is_named_and_read_past(sound: Path, store: Path, name: str) -> None:
    (store / name).write_bytes(b"x")
    assert [problem.path for problem in verify_store(store)] == [name]
    assert look(store) == look(sound)


SEALED_AGAIN: dict[str, Damage] = {
    **{name: UNSOUND[name][1] for name in UNSOUND if name[:2] in ("42", "43")},
    "no labels": replaced(LABELS, lambda _: b""),
    "labels too few": replaced(LABELS, lambda data: data[:-4]),
    "labels of halves": replaced(LABELS, lambda data: data[:-1]),
    "a label beyond the classes": replaced(LABELS, lambda data: b"\x7f" + data[1:]),
    "a negative label": replaced(LABELS, lambda data: b"\xff" * 4 + data[4:]),
    "a sample beyond the table": replaced(
        "train/sample/source_index/c.0", lambda data: b"\x7f" + data[1:]
    ),
    "a sample of two": replaced(TABLE, lambda _: b'["a","b"]\n' * 7),
    "a sample of numbers": replaced(TABLE, lambda _: b"[1,2,3]\n" * 7),
    "no table": replaced(TABLE, lambda _: b"\xff\x00"),
    "a statistic too short": replaced("calib/tap01/mean/c.0", lambda data: data[:-4]),
    "a statistic of nothing": replaced("calib/tap01/std/c.0", lambda _: b""),
    "a commit without objects": replaced(layout.commit_object("train", 0), lambda _: b"{}\n"),
    "a commit of a list": edited(layout.commit_object("train", 0), "objects", value=[]),
    "a commit of numbers": edited(
        layout.commit_object("train", 0), "objects", layout.check_object("train", 1, 0), value=1
    ),
    "a plan of a word": edited(layout.PLAN_OBJECT, "exponents", value="ab"),
    "taps of words": edited(layout.PLAN_OBJECT, "identity", "features", "taps", value="ab"),
}


@pytest.mark.parametrize("name", SEALED_AGAIN)
def test_a_store_whose_seal_was_forged_works_or_is_exit_4(store: Path, name: str) -> None:
    SEALED_AGAIN[name](store)
    seal_again(store)
    assert {error.exit_code for error in complaints(store)} <= {4}
    verify_store(store)


FORGED_SEALS: dict[str, Damage] = {
    "no splits": edited(layout.SEALED_OBJECT, "splits", value={}),
    "splits of a list": edited(layout.SEALED_OBJECT, "splits", value=[]),
    "files of a list": edited(layout.SEALED_OBJECT, "files", value=[]),
    "digests of numbers": edited(layout.SEALED_OBJECT, "files", value={layout.PLAN_OBJECT: 7}),
    "skipped beyond": edited(layout.SEALED_OBJECT, "splits", "train", "skipped", value=[[99, 8]]),
}


@pytest.mark.parametrize("name", FORGED_SEALS)
def test_a_seal_that_says_what_cannot_be_is_exit_4(store: Path, name: str) -> None:
    FORGED_SEALS[name](store)
    sealed = files.read_json(store / layout.SEALED_OBJECT)
    sealed["digest"] = seal_digest(sealed)
    (store / layout.SEALED_OBJECT).write_bytes(files.canonical_json(sealed))
    assert {error.exit_code for error in complaints(store)} == {4}
    assert verify_store(store)


def test_a_later_major_is_refused_and_a_later_minor_is_read(sound: Path, store: Path) -> None:
    place = ("attributes", "losa", "format")
    edited(layout.ROOT_OBJECT, *place, "minor", value=7)(store)
    seal_again(store)
    assert untrue(look(store), {**look(sound), "id": open_store(store).store_id}) == []
    assert verify_store(store) == []
    edited(layout.ROOT_OBJECT, *place, "major", value=2)(store)
    seal_again(store)
    with pytest.raises(StoreError, match="this losa reads format 1; upgrade") as caught:
        open_store(store)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_reading_writes_nothing(
    memory: Path, monkeypatch: pytest.MonkeyPatch, dtype: StoreDtype
) -> None:
    """As on a file system that cannot be written."""

    def refuse(name: str, subject: Any) -> None:
        raise OSError(30, os.strerror(30), str(subject))

    path = written(memory / "s.zarr", rich_content(dtype))
    before = tree(path)
    monkeypatch.setattr(system, "current", HookedSystem(refuse))
    assert complaints(path) == []
    assert verify_store(path) == []
    assert tree(path) == before


def test_a_store_works_wherever_it_is_moved_or_copied_to(
    sound: Path, store: Path, memory: Path
) -> None:
    want = look(sound)
    assert look(Path(shutil.move(store, memory / "an other, place.zarr"))) == want
    for name in tree(sound):  # as rsync and object stores do, which know no empty folders
        (memory / "t.zarr" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sound / name, memory / "t.zarr" / name)
    assert look(memory / "t.zarr") == want
    assert verify_store(memory / "t.zarr") == []


def test_all_that_a_copy_lacks_is_listed(sound: Path, store: Path) -> None:
    gone = [name for name in tree(sound) if not name.startswith(".losa/")][::3]
    for name in gone:
        (store / name).unlink()
    assert set(gone) == {problem.path for problem in verify_store(store)}
    assert {error.exit_code for error in complaints(store)} == {4}


def test_hard_links_to_elsewhere_are_files_like_any_other(
    sound: Path, store: Path, memory: Path
) -> None:
    os.link(store / TOKENS, memory / "elsewhere")
    assert look(store) == look(sound)
    assert verify_store(store) == []
