"""Predictions of runs that learn several labels, or numbers, by a file of targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from losa.adapt.checkpoint import load_adaptor
from losa.adapt.evaluate import logits_of_rows
from losa.adapt.train import adapt
from losa.config import AdaptConfig, checked
from losa.live.predict import PredictRequest, predict, table_rows
from losa.store import open_store
from tests.live.trained import Trained, train_small


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_small(tmp_path_factory.mktemp("tasks"), "float32")


def run_on(trained: Trained, root: Path, header: str, value_of: dict[str, str]) -> Path:
    """Train on targets that the store's classes name."""
    store = open_store(trained.store)
    listed = [sample for name in store.splits for sample in store.split(name).samples]
    lines = [f"{sample.key},{value_of[store.classes[sample.label]]}" for sample in listed]
    (root / "t.csv").write_text("\n".join([header, *lines]))
    places = {"store": trained.store, "out": root / "run", "targets": root / "t.csv"}
    adapt(checked(AdaptConfig, {**places, "rank": 2, "epochs": 4, "batch_size": 8}))
    return root / "run"


def cached_logits(trained: Trained, run: Path, split: str) -> dict[str, np.ndarray]:
    """Logits by the path of each sample."""
    adaptor, _ = load_adaptor(run)
    store = open_store(trained.store)
    reader = store.split(split)
    logits = logits_of_rows(adaptor, store, split, np.arange(reader.rows)).double().numpy()
    paths = [reader.samples[i].path for i in reader.source_index.tolist()]
    return dict(zip(paths, logits, strict=True))


def test_all_labels_have_a_probability_of_their_own(trained: Trained, tmp_path: Path) -> None:
    classes = open_store(trained.store).classes
    values = dict(zip(classes, ("warm;round", "", "round"), strict=True))
    run = run_on(trained, tmp_path, "key,labels", values)
    request = PredictRequest(
        run, (trained.pictures / "test",), "random", store=trained.store, top=1, device="cpu"
    )
    result = predict(request)
    cached = cached_logits(trained, run, "test")
    assert result["cache_check"]["compared"] == len(result["predictions"]) == len(cached)
    assert result["cache_check"]["same_classes"] is True
    assert result["cache_check"]["max_abs_difference"] <= 1e-4
    for item in result["predictions"]:
        (logits,) = (found for path, found in cached.items() if item["path"].endswith(path))
        want = dict(zip(("round", "warm"), 1 / (1 + np.exp(-logits)), strict=True))
        assert item["probabilities"] == pytest.approx(want, abs=1e-4)
        best = max(item["probabilities"], key=item["probabilities"].__getitem__)
        assert [one["class"] for one in item["top"]] == [best]


def test_numbers_are_predicted_in_their_own_units(trained: Trained, tmp_path: Path) -> None:
    classes = open_store(trained.store).classes
    values = dict(zip(classes, ("100,1", "200,5", "400,3"), strict=True))
    run = run_on(trained, tmp_path, "key,weight,size", values)
    picture = trained.pictures / "test/red/000.png"
    request = PredictRequest(run, (picture,), "random", store=trained.store, device="cpu")
    result = predict(request)
    (item,) = result["predictions"]
    logits = cached_logits(trained, run, "test")
    (found,) = (one for path, one in logits.items() if str(picture).endswith(path))
    # Twenty-four samples of train, eight of each class.
    weights, sizes = np.array([100.0, 200.0, 400.0]), np.array([1.0, 5.0, 3.0])
    want = {"weight": weights.mean() + weights.std() * found[0],
            "size": sizes.mean() + sizes.std() * found[1]}  # fmt: skip
    assert item["numbers"] == pytest.approx(want, rel=1e-3)
    assert "top" not in item
    assert result["cache_check"]["compared"] == 1
    assert [row[1] for row in table_rows([item])] == ["weight", "size"]
