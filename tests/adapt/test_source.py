"""A store on disk and one in memory are the same thing to training, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import torch

from losa.adapt.evaluate import evaluate
from losa.adapt.loader import FeatureLoader
from losa.adapt.ring import Ring, RingOptions
from losa.adapt.source import FeatureSource, RowReader
from losa.adapt.train import adapt
from losa.config import AdaptConfig
from losa.features import Regime
from losa.store import open_store
from tests.adapt.memory_store import separable_store
from tests.store import build


def test_both_stores_fulfil_the_interface(tmp_path: Path) -> None:
    real = open_store(build.small_store(tmp_path / "s.zarr"))
    for store in (real, separable_store()):
        assert isinstance(store, FeatureSource)
        assert isinstance(store.split("train"), RowReader)


def test_a_loader_gives_the_bytes_of_the_store(tmp_path: Path) -> None:
    plan = build.small_plan()
    store = open_store(build.small_store(tmp_path / "s.zarr", plan))
    rows = np.arange(20, dtype=np.int64)
    want = build.features(plan, "train")
    with Ring(store.spec, RingOptions(6, torch.device("cpu"))) as ring:
        loader = FeatureLoader(store.split("train"), rows, ring, shuffle=True)
        for batch in loader.epoch(1):
            np.testing.assert_array_equal(batch.features.numpy(), want[:, batch.rows])


def test_a_store_on_disk_is_trained_on_and_evaluated(tmp_path: Path) -> None:
    path = build.small_store(tmp_path / "s.zarr")
    config = AdaptConfig(store=path, out=tmp_path / "run", device="cpu", epochs=2, rank=2)
    report = adapt(config)
    found = evaluate(tmp_path / "run", split="val", device="cpu")
    assert found["top1"] == report.metrics["val"]["top1"]
    assert found["store_id"] == open_store(path).store_id == report.store_id


def test_a_run_is_the_same_in_every_regime(tmp_path: Path) -> None:
    path = build.small_store(tmp_path / "s.zarr", build.small_plan(dtype="int8"))
    found = []
    for regime in get_args(Regime):
        out = tmp_path / regime
        config = AdaptConfig(store=path, out=out, device="cpu", epochs=2, rank=2)
        adapt(config.model_copy(update={"read": regime}))
        scores = evaluate(out, split="val", device="cpu")
        del scores["run"]
        found.append((scores, (out / "best.safetensors").read_bytes()))
    assert all(item == found[0] for item in found)
