"""Rare things that a store refuses: labels HDF5 cannot hold, views that are none, late claims."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from losa.errors import StoreError
from losa.store import StoreWriter, layout
from losa.store.claims import Claims, ShardTask
from losa.store.exchange import export_store
from losa.store.h5file import H5File
from losa.store.h5store import open_h5
from tests.store.build import begin_store, samples, small_plan, small_store


def test_several_labels_a_sample_are_not_exported(tmp_path: Path) -> None:
    plan = small_plan()
    listed = {
        split: [replace(sample, label=-1, labels=(0, 1)) for sample in found]
        for split, found in samples(plan).items()
    }
    sealed = small_store(tmp_path / "t.zarr")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("losa.store.sealed.parse_samples", lambda _: listed["train"])
        with pytest.raises(StoreError, match="has samples of several labels in"):
            export_store(sealed, tmp_path / "t.h5", splits=("train",))


def test_views_that_are_not_every_view_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = small_plan(views=2)
    export_store(small_store(tmp_path / "s.zarr", plan), tmp_path / "s.h5")
    store = open_h5(tmp_path / "s.h5")
    rows = plan.splits["train"].rows
    monkeypatch.setattr(H5File, "read", lambda *_: np.zeros(rows, np.uint8))
    with pytest.raises(StoreError, match="is not every view of every sample"):
        assert store.split("train").views.any()


def test_a_claim_that_came_after_the_commit_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.zarr"
    begin_store(path, small_plan())
    take = Claims.take

    def late(self: Claims, task: ShardTask) -> bool:
        (path / layout.commit_object(task.split, task.shard)).write_bytes(b"by another process")
        return take(self, task)

    with StoreWriter(path, durable=False) as writer:
        monkeypatch.setattr(Claims, "take", late)
        assert list(writer.claimed()) == []
    assert not list((path / ".losa/claims").glob("*/*"))
