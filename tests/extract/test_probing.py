"""Claims of losa.extract.probing: measured here, and little of it where little can be."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from losa.config import ExtractConfig
from losa.device import resolve_compute
from losa.errors import ResourceError
from losa.extract import planning, probing
from losa.extract.estimate import Estimate, estimate
from losa.extract.planning import Inputs, asked_backbone
from losa.store.plan import Numerics
from tests.extract.picture_folder import picture_folder, tiny_config
from tests.store.build import small_plan, small_store


@pytest.fixture
def in_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "FORWARD_SECONDS", 0.1)
    monkeypatch.setattr(probing, "DECODE_SECONDS", 0.05)
    monkeypatch.setattr(probing, "DISK_SECONDS", 0.0)
    monkeypatch.setattr(probing, "DISK_BLOCK", 2**16)
    monkeypatch.setattr(probing, "REHEARSAL_SECONDS", 0.1)


def probed(config: ExtractConfig) -> Estimate:
    return estimate(config, is_probed=True)


@pytest.mark.usefixtures("in_short")
def test_every_rate_and_the_time_from_start_to_seal_are_measured(tmp_path: Path) -> None:
    data = picture_folder(tmp_path / "d", {"train": 8, "val": 2})
    found = probed(tiny_config(data, tmp_path / "s.zarr"))
    told = json.loads(json.dumps(found.to_json()))
    assert all(value > 0 for value in told["probe"]["rates"].values())
    assert told["probe"]["predicted_seconds"] > told["probe"]["start_seconds"]
    assert told["room"] == told["probe"]["rates"]["free_bytes"]
    assert told["forward_hours"] == pytest.approx(30 / told["probe"]["rates"]["forward"] / 3600)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d"]


@pytest.mark.usefixtures("in_short")
def test_without_the_images_the_forward_and_the_disk_are_measured(tmp_path: Path) -> None:
    values = {"model": "vit_tiny_patch16_224", "weights": "random", "dataset": "inat2018"}
    place = {"data_dir": tmp_path / "none", "store": tmp_path / "deep/er/s.zarr", "img_size": 32}
    found = probed(ExtractConfig.model_validate({**values, **place}))
    assert found.rates.forward is not None
    assert found.rates.read is not None
    assert (found.rates.decode, found.rates.together) == (None, None)
    assert found.probe is not None
    assert found.probe.predicted_seconds is None
    assert found.asked.extract_hours is None


@pytest.mark.usefixtures("in_short")
def test_the_batch_is_found_out_once_whatever_other_store_lies_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fitted: list[bool] = []

    def fit(inputs: Inputs, *_: object) -> int:
        fitted.append(inputs.config.overwrite)
        return 3

    monkeypatch.setattr(planning, "_auto_batch", fit)
    data = picture_folder(tmp_path / "d", {"train": 8})
    small_store(tmp_path / "s.zarr")
    config = tiny_config(data, tmp_path / "s.zarr", batch_size="auto")
    found = probed(config)
    assert found.probe is not None
    assert found.probe.forward_batch <= 3
    # Told to replace the store: with that, a device is asked, and not the store that goes.
    assert fitted == [True]


@pytest.mark.parametrize(
    ("changes", "backbone", "batch"),
    [
        ({}, {}, 5),
        ({"overwrite": True}, {}, 7),
        ({}, {"model": "another"}, 7),
        ({"device": "cuda"}, {}, 7),
    ],
)
def test_only_a_store_that_would_be_gone_on_with_lends_its_batch(
    tmp_path: Path, changes: dict[str, object], backbone: dict[str, str], batch: int
) -> None:
    config = tiny_config(tmp_path, tmp_path / "s.zarr", batch_size=7)
    compute = resolve_compute("cpu", "none")
    built = asked_backbone(config, compute)
    plan = small_plan()
    plan = replace(plan, numerics=Numerics(str(changes.pop("device", "cpu")), None, 5))
    small_store(config.store, replace(plan, backbone={"model": built.name, **backbone}))
    asked = config.model_copy(update=changes)
    assert probing._batch(asked, None, built, compute) == batch


@pytest.mark.usefixtures("in_short")
def test_where_a_batch_takes_seconds_nothing_is_foretold(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = picture_folder(tmp_path / "d", {"train": 8})
    monkeypatch.setattr(probing, "MOST_SECONDS", 0.0)
    found = probed(tiny_config(data, tmp_path / "s.zarr"))
    assert found.probe is not None
    assert found.probe.predicted_seconds is None
    assert found.rates.live == min(found.rates.forward or 0, found.rates.decode or 0)
    assert "a batch takes seconds here" in caplog.text


@pytest.mark.usefixtures("in_short")
def test_weights_that_are_not_here_are_replaced_by_random_ones_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(probing, "is_at_hand", lambda _: False)
    data = picture_folder(tmp_path / "d", {"train": 8})
    with caplog.at_level(logging.WARNING, "losa"):
        found = probed(tiny_config(data, tmp_path / "s.zarr", weights=None))
    assert found.probe is not None
    assert found.probe.weights == "random"
    assert "are not here; random ones are as fast" in caplog.text
    assert "NOT PRETRAINED" in caplog.text


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="cannot be written"):
        probing.disk_rates(tmp_path / "none")
