"""Claims of losa.live.evaluate."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from losa.adapt.evaluate import evaluate
from losa.errors import MismatchError
from losa.extract.run import ExtractEvent
from losa.live.evaluate import LiveRequest, evaluate_dataset
from tests.live.trained import Trained, train_small


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_small(tmp_path_factory.mktemp("evaluate"))


def request(trained: Trained, data: Path, split: str = "test") -> LiveRequest:
    return LiveRequest(trained.run, f"folder:{data}", Path(), split, "random", batch_size=4)


def test_raw_media_score_as_the_store_of_them_does(trained: Trained) -> None:
    told: list[ExtractEvent] = []
    live = evaluate_dataset(request(trained, trained.pictures), progress=told.append)
    cached = evaluate(trained.run, trained.store, "test", device="cpu")
    for name in ("top1", "top5", "mean_per_class", "rows"):
        assert live[name] == cached[name]
    assert live["loss"] == pytest.approx(cached["loss"], abs=1e-3)
    assert told[-1].done == told[-1].total == 9


def test_an_unreadable_picture_counts_as_wrong(trained: Trained, tmp_path: Path) -> None:
    data = Path(shutil.copytree(trained.pictures, tmp_path / "data"))
    (data / "test/red/000.png").write_bytes(b"")
    found = evaluate_dataset(request(trained, data), progress=lambda _: None)
    assert (found["rows"], found["skipped"]) == (9, 1)
    assert found["top1"] == pytest.approx(found["top1_readable"] * 8 / 9)


def test_other_classes_are_refused(trained: Trained, tmp_path: Path) -> None:
    data = Path(shutil.copytree(trained.pictures, tmp_path / "data"))
    shutil.rmtree(data / "train/red")
    shutil.rmtree(data / "val/red")
    shutil.rmtree(data / "test/red")
    with pytest.raises(MismatchError, match=r"its 2 classes are not the run's 3"):
        evaluate_dataset(request(trained, data), progress=lambda _: None)
