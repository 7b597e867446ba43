"""The claim of losa.store.opening for training: what trains on a store trains on its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from losa.adapt.evaluate import evaluate
from losa.adapt.train import adapt
from losa.config import AdaptConfig
from losa.features import StoreDtype
from losa.store.exchange import export_store
from tests.store.build import small_plan, small_store


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_run_on_the_file_is_the_run_on_the_store(tmp_path: Path, dtype: StoreDtype) -> None:
    store, file = small_store(tmp_path / "s.zarr", small_plan(dtype=dtype)), tmp_path / "s.h5"
    export_store(store, file)
    reports = []
    for path, out in ((store, tmp_path / "a"), (file, tmp_path / "b")):
        config = AdaptConfig(
            store=path, out=out, rank=2, epochs=2, batch_size=8, device="cpu", seed=1
        )
        reports.append(adapt(config))
    ours, theirs = reports
    assert ours.metrics == theirs.metrics
    assert ours.store_id == theirs.store_id
    found = [evaluate(tmp_path / "a", path, "val", device="cpu") for path in (store, file, None)]
    assert found[0] == found[1] == found[2]
    left, right = ((tmp_path / run / "best.safetensors").read_bytes() for run in "ab")
    assert (
        left[8 + int.from_bytes(left[:8], "little") :]
        == (right[8 + int.from_bytes(right[:8], "little") :])
    )
