"""Claims of losa.extract.run: told to end before the first shard or after the last; workers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from losa.errors import StoppedError
from losa.extract import workers
from losa.extract.extraction import ExtractEvent, Extraction
from losa.extract.fleet import Place
from losa.extract.run import extract
from losa.store import open_store
from losa.store.extending import finish_extension
from tests.extract.picture_folder import picture_folder, tiny_config
from tests.store.build import tree


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("pictures"), {"train": 3})


@pytest.mark.parametrize("extends", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_while_calibrating_is_75_and_says_so(
    pictures: Path, tmp_path: Path, number: signal.Signals, *, extends: bool
) -> None:
    path = tmp_path / "s.zarr"
    config = tiny_config(pictures, path, calibration_rows=512)
    if extends:
        extract(config.model_copy(update={"taps": "2"}))
        config = config.model_copy(update={"taps": "11", "extend": True})
    before = sorted(tmp_path.iterdir())

    def tell(event: ExtractEvent) -> None:
        if event.phase == "calibrate":
            os.kill(os.getpid(), number)

    with pytest.raises(StoppedError) as told:
        extract(config, progress=tell)
    said = f"{path}: told to end ({number.name}) before it wrote a row"
    assert (str(told.value), told.value.exit_code) == (said, 75)
    assert sorted(tmp_path.iterdir()) == before


def test_a_signal_while_the_store_is_sealed_is_75_and_the_same_call_seals_it(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal = Extraction.seal

    def told(self: Extraction) -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        return seal(self)

    monkeypatch.setattr(Extraction, "seal", told)
    config = tiny_config(pictures, tmp_path / "s.zarr")
    with pytest.raises(StoppedError, match="while it sealed the store; start the same"):
        extract(config, place=Place(0, 2))
    monkeypatch.undo()
    assert extract(config)["computed_rows"] == 0
    whole = tmp_path / "whole.zarr"
    extract(config.model_copy(update={"store": whole}))
    assert tree(config.store) == tree(whole)


def test_a_signal_while_an_extension_takes_its_place_is_75_and_the_same_call_ends_it(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.zarr"
    config = tiny_config(pictures, path, taps="2")
    extract(config)
    more = config.model_copy(update={"taps": "11", "extend": True})
    with monkeypatch.context() as patch:
        patch.setattr("losa.extract.extend.finish_extension", crash)
        with pytest.raises(KeyError):
            extract(more)

    def told(place: Path) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        finish_extension(place)

    with monkeypatch.context() as patch:
        patch.setattr("losa.extract.run.finish_extension", told)
        with pytest.raises(StoppedError, match=r"told to end \(SIGTERM\) while it put") as caught:
            extract(more)
    assert caught.value.exit_code == 75
    assert extract(more)["computed_rows"] == 0
    assert open_store(path).spec.taps == (2, 11)
    assert [place.name for place in tmp_path.iterdir() if ".extend" in place.name] == []


def crash(_: Path) -> None:
    raise KeyError


def test_calibration_and_what_follows_are_decoded_by_the_same_processes(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    ready = workers._Worker.is_ready

    def counted(self: workers._Worker) -> bool:
        started.append(self)
        return ready(self)

    monkeypatch.setattr(workers._Worker, "is_ready", counted)
    config = tiny_config(pictures, tmp_path / "s.zarr", num_workers=1, taps="2")
    extract(config)
    assert len(started) == 1
    extract(config.model_copy(update={"taps": "11", "extend": True}))
    assert len(started) == 2
