"""Claims of losa.live.scoring: what flags go together, files of one run, error bars of several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from losa.adapt.train import adapt
from losa.config import AdaptConfig, EvaluateConfig
from losa.errors import UsageError
from losa.live.scoring import check_flags, evaluate_runs
from tests.command import Losa
from tests.live.trained import Trained, train_small


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_small(tmp_path_factory.mktemp("scoring"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"store": "s", "dataset": "d"}, "--dataset: does not go with --store"),
        ({"num_workers": 1}, "--num-workers: needs --dataset"),
        ({"data_dir": "d"}, "--data-dir: needs --dataset"),
        ({"views": "flip"}, "--views: flip: a store's features cannot be mirrored"),
        ({"views": "average", "dataset": "d"}, "--views: average: raw media have no"),
        ({"targets": "t.csv", "dataset": "d"}, "--targets: needs a store"),
        ({"run": ("a", "b"), "predictions": "p.csv"}, "--predictions: does not go with 2 runs"),
        ({"run": ("a", "b"), "out": "o"}, "--out: does not go with 2 runs"),
        ({"predictions": "/gone/p.csv"}, "--predictions: the folder /gone does not exist"),
    ],
)
def test_flags_that_mean_nothing_together_are_refused(given: dict[str, Any], message: str) -> None:
    settings = EvaluateConfig.model_validate({"run": ("a",), **given})
    with pytest.raises(UsageError, match=message):
        check_flags(settings, given)


@pytest.mark.parametrize("source", ["store", "dataset"])
def test_one_run_leaves_its_files_and_says_their_names(
    trained: Trained, tmp_path: Path, source: str
) -> None:
    media = {"dataset": f"folder:{trained.pictures}", "weights": "random", "num_workers": 0}
    settings = EvaluateConfig.model_validate(
        {
            **({"store": trained.store} if source == "store" else media),
            "run": (trained.run,),
            "device": "cpu",
            "out": tmp_path / "out",
            "predictions": tmp_path / "p.csv",
        }
    )
    found = evaluate_runs(settings, lambda _: None)
    files = [Path(file) for file in found.result["files"]]
    assert sorted(files) == sorted((tmp_path / "out").iterdir())
    assert {"classes.csv", "confusion.csv"} < {file.name for file in files}
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 10


def test_several_runs_give_error_bars_on_the_command_line(
    losa: Losa, trained: Trained, tmp_path: Path
) -> None:
    config = AdaptConfig(store=trained.store, rank=2, epochs=4, batch_size=8)
    other = config.model_copy(update={"out": tmp_path / "seed1", "seed": 1})
    adapt(other)
    runs = ("--run", trained.run, "--run", tmp_path / "seed1")
    found = losa("evaluate", *runs, "--split", "val")
    assert found.code == 0
    assert found.value["seeds"] == [0, 1]
    tops = [one["top1"] for one in found.value["runs"]]
    assert found.value["mean"]["top1"] == pytest.approx(sum(tops) / 2)
    assert found.value["standard_error"]["top1"] == pytest.approx(abs(tops[0] - tops[1]) / 2)
    assert "standard error" in found.err
    twice = losa("evaluate", "--run", trained.run, "--run", trained.run)
    assert (twice.code, twice.out) == (2, "")
    assert "have the same seed 0" in twice.err


def test_a_screen_shows_the_table_of_classes_and_stdout_one_line(
    losa: Losa, trained: Trained
) -> None:
    found = losa("evaluate", "--run", trained.run)
    assert len(found.value["confusion"]) == 3
    assert "precision %" in found.err
    assert "true | predicted" in found.err
