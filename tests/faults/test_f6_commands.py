"""F6 through the command line: verify names it, repair and the same extraction bring it back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from losa.cli import app
from losa.errors import LosaError
from losa.store import layout
from tests.extract.picture_folder import picture_folder
from tests.faults.content import kept
from tests.store.build import tree

MODEL = ("--model", "vit_tiny_patch16_224", "--weights", "random", "--device", "cpu")
FLAGS = ("--img-size", "32", "--taps", "2,11", "-b", "4", "-j", "0", "--shard-rows", "4")
Losa = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def losa(capsys: pytest.CaptureFixture[str]) -> Losa:
    """Run a command; returns its exit code, its JSON line, and what it complained of."""

    def run(*arguments: object) -> tuple[int, dict[str, Any], str]:
        capsys.readouterr()
        code, complaint = 0, ""
        try:
            app([*map(str, arguments)], standalone_mode=False)
        except LosaError as error:
            code, complaint = error.exit_code, str(error)
        lines = capsys.readouterr().out.splitlines()
        return code, json.loads(lines[-1]) if lines else {}, complaint

    return run


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("f6"), {"train": 2, "val": 1})


def extraction(pictures: Path, store: Path) -> tuple[object, ...]:
    data = ("--dataset", f"folder:{pictures}", "--store", store)
    return ("extract", *MODEL, *data, *FLAGS, "--store-dtype", "int8")


@pytest.fixture
def store(losa: Losa, pictures: Path, tmp_path: Path, made: Path) -> Path:
    """A store that the command line has extracted, once for all tests."""
    if not made.exists():
        assert losa(*extraction(pictures, made))[0] == 0
    return Path(shutil.copytree(made, tmp_path / "s.zarr"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where that store lies."""
    return tmp_path_factory.mktemp("f6") / "s.zarr"


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])


DAMAGE: dict[str, Callable[[Path], None]] = {
    "train/tokens/tap11/c.0.0.0": flip,
    "train/scale/tap02/c.1.0": halve,
    layout.commit_object("val", 0): Path.unlink,
    layout.SEALED_OBJECT: halve,
    layout.PLAN_OBJECT: Path.unlink,
    "train/sample/label/c.0": flip,
    "calib/tap02/channel/c.0": Path.unlink,
    layout.ROOT_OBJECT: halve,
}
QUICK = 1


@pytest.mark.parametrize(
    "names",
    [list(DAMAGE)[:QUICK], pytest.param(list(DAMAGE), marks=pytest.mark.faults, id="whole")],
)
def test_what_is_damaged_is_named_repaired_and_extracted_again(
    losa: Losa, store: Path, pictures: Path, names: list[str]
) -> None:
    command = extraction(pictures, store)
    before = tree(store)
    for name in names:
        DAMAGE[name](store / name)
        code, result, complaint = losa("verify", store)
        assert (code, result["sound"]) == (4, False)
        assert name in [problem["path"] for problem in result["problems"]]
        assert str(store) in complaint
        assert losa("repair", store, "--yes")[0] == 0
        code, result, _ = losa(*command)
        assert (code, result["store_id"]) == (0, losa("inspect", store)[1]["store_id"])
        assert kept(store) == before, name
        assert losa("verify", store)[:1] == (0,)
    losa("gc", store, "--older-than", 0, "--yes")
    assert tree(store) == before


def test_a_copy_that_stopped_half_way_is_finished_by_the_same_commands(
    losa: Losa, store: Path, pictures: Path, tmp_path: Path
) -> None:
    before = tree(store)
    moved = Path(shutil.move(store, tmp_path / "elsewhere.zarr"))
    gone = [name for name in before if name.startswith(("val/", "train/tokens/"))]
    for name in gone:
        (moved / name).unlink()
    code, result, _ = losa("verify", moved)
    assert code == 4
    assert set(gone) <= {problem["path"] for problem in result["problems"]}
    assert losa("repair", moved, "--yes")[0] == 0
    assert losa(*extraction(pictures, moved))[0] == 0
    assert kept(moved) == before
