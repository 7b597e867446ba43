"""Claims of int8 stores that are extracted: whole, resumed, with what cannot be stored or read."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from losa.errors import InputError
from losa.extract.run import extract
from losa.precision import channel_scales
from losa.store import layout, open_store
from losa.store.verify import verify_store
from tests.extract.picture_folder import picture_folder, tiny_config
from tests.store.build import tree


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("pictures"), {"train": 7, "val": 2})


@pytest.fixture(scope="module")
def sealed(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sealed") / "s.zarr"
    extract(tiny_config(pictures, path, store_dtype="int8"))
    return path


def test_the_channel_scales_are_those_of_the_stores_own_statistics(sealed: Path) -> None:
    found = open_store(sealed).calibration((2, 11))
    assert found.channel is not None
    np.testing.assert_array_equal(found.channel, channel_scales(found.std))
    assert found.exponent == (0, 0)


def test_an_int8_store_is_whole(sealed: Path) -> None:
    assert verify_store(sealed) == []


@pytest.mark.parametrize("name", ["scale/tap02/c.3.0", "tokens/tap11/c.3.0.0"])
@pytest.mark.parametrize("damage", [None, b"cut"])
def test_an_interrupted_int8_store_is_resumed_to_the_same_bytes(
    sealed: Path, pictures: Path, tmp_path: Path, name: str, damage: bytes | None
) -> None:
    path = Path(shutil.copytree(sealed, tmp_path / "s.zarr"))
    (path / layout.SEALED_OBJECT).unlink()
    (path / layout.commit_object("train", 3)).unlink()
    victim = path / "train" / name
    if damage is None:
        victim.unlink()
    else:
        victim.write_bytes(damage)
    assert extract(tiny_config(pictures, path, store_dtype="int8"))["computed_rows"] == 4
    assert tree(path) == tree(sealed)


def test_a_feature_that_int8_cannot_hold_names_its_sample_and_tap(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if calibration had seen other rows: what comes then may be larger than any scale.
    monkeypatch.setattr("losa.extract.calibrate.channel_scales", lambda std: 0 * std + 1e-20)
    with pytest.raises(InputError, match=r"png: its features at tap 2 do not fit int8") as caught:
        extract(tiny_config(pictures, tmp_path / "s.zarr", store_dtype="int8"))
    assert caught.value.exit_code == 3


def test_a_skipped_image_has_neither_values_nor_scales(pictures: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(pictures, tmp_path / "broken"))
    victim = broken / "train/green/004.png"
    victim.write_bytes(victim.read_bytes()[:60])
    path = tmp_path / "s.zarr"
    extract(tiny_config(broken, path, on_error="skip", max_skip=0.5, store_dtype="int8"))
    reader = open_store(path).split("train")
    rows = np.flatnonzero(reader.status != 1)
    out, scales = np.ones((2, 1, 5, 192), np.int8), np.ones((2, 1, 5), np.float16)
    reader.read_into(rows, (2, 11), out, scales)
    assert not out.any()
    assert not scales.any()
    assert verify_store(path) == []
