"""Claims of losa.extract.run: several processes, however many, write the very same store."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from losa.extract.fleet import Place
from losa.extract.run import extract
from losa.store import layout
from tests.extract.extending import StopError, built_once, stop_after
from tests.extract.picture_folder import picture_folder, tiny_config
from tests.extract.processes import (
    TINY,
    at_a_claim,
    claimed,
    committed,
    finish,
    start,
    wait_until_stopped,
)
from tests.store.build import tree

MODULE = (sys.executable, "-m")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where ``data`` lies, and ``one.zarr``, which one process has written."""
    root = tmp_path_factory.mktemp("fleet")
    picture_folder(root / "data", {"train": 24, "val": 4})
    extract(tiny_config(root / "data", root / "one.zarr", calibration_rows=512))
    return root


def test_a_killed_process_is_replaced_by_the_others(folder: Path) -> None:
    store = folder / "killed.zarr"
    words = ("extract", *TINY, "--store", store.name)
    first = start(
        folder, *at_a_claim(8, signal.SIGSTOP), *words, program=MODULE, RANK=0, WORLD_SIZE=2
    )
    wait_until_stopped(first)  # or it would be done before the second has begun
    second = start(
        folder, *at_a_claim(8, signal.SIGKILL), *words, program=MODULE, RANK=1, WORLD_SIZE=2
    )
    assert finish(second, -signal.SIGKILL)[0] == ""
    assert 0 < committed(store) < 21
    assert claimed(store, first.pid)
    assert claimed(store, second.pid)
    first.send_signal(signal.SIGCONT)
    out, err = finish(first)
    assert json.loads(out)["splits"]["train"] == {"rows": 72, "ok": 72, "shards": 18}
    assert "extract: 100%" in err
    assert tree(store) == tree(folder / "one.zarr")


@pytest.mark.slow
def test_torchrun_whose_processes_are_killed_is_started_again_and_ends_the_store(
    folder: Path,
) -> None:
    store = folder / "torchrun.zarr"
    words = ("extract", *TINY, "--store", store.name)
    program = (*TORCHRUN, "--nproc-per-node", "2", "--max-restarts", "0", "-m")
    killed = start(folder, *at_a_claim(8, signal.SIGKILL), *words, program=program)
    assert finish(killed, 1)[0] == ""
    assert 0 < committed(store) < 21
    assert not (store / layout.SEALED_OBJECT).exists()
    out, _ = finish(start(folder, "losa", *words, program=program))
    assert [json.loads(line)["store"] for line in out.splitlines()] == [str(store)]
    assert tree(store) == tree(folder / "one.zarr")


def test_the_number_of_processes_may_change_with_every_start(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("losa.extract.planning.build_backbone", built_once)
    config = tiny_config(folder / "data", tmp_path / "s.zarr", calibration_rows=512)
    done = [0]
    for count in (3, 2):
        for number in range(count):
            with pytest.raises(StopError):
                extract(
                    config, progress=stop_after(done[-1] + 8, "extract"), place=Place(number, count)
                )
            done.append(4 * committed(tmp_path / "s.zarr"))
    assert extract(config)["computed_rows"] == 84 - done[-1] > 0
    assert tree(tmp_path / "s.zarr") == tree(folder / "one.zarr")


def test_the_other_processes_do_not_calibrate(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("losa.extract.planning.build_backbone", built_once)
    config = tiny_config(folder / "data", tmp_path / "s.zarr", calibration_rows=512)
    phases: list[str] = []

    def wait(path: Path, place: Place) -> None:
        if not place.is_first:
            assert not path.exists()
            with pytest.raises(StopError):
                extract(config, progress=stop_after(0, "extract"), place=Place(0, 2))

    monkeypatch.setattr("losa.extract.run.wait_for_first", wait)
    extract(config, progress=lambda event: phases.append(event.phase), place=Place(1, 2))
    assert set(phases) == {"extract"}
    assert tree(tmp_path / "s.zarr") == tree(folder / "one.zarr")
