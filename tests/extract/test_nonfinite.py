"""Claims of losa.extract.nonfinite: rows whose features do not fit."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from losa.errors import InputError, SkippedError
from losa.extract.planning import gather_inputs
from losa.extract.recompute import RecomputeRequest, recompute_rows
from losa.extract.run import check_skips, extract
from losa.extract.vit import ViTBackbone
from losa.features import StoreDtype
from losa.store import layout, open_store
from losa.store.verify import verify_store
from tests.extract.overflow import always, in_autocast, overflow
from tests.extract.picture_folder import picture_folder, tiny_config
from tests.store.build import tree

WHITE = "train/red/003.png"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of which one is all white."""
    data = picture_folder(tmp_path_factory.mktemp("pictures"), {"train": 5, "val": 1})
    Image.new("RGB", (32, 32), (255, 255, 255)).save(data / WHITE)
    return data


def white_row(path: Path) -> int:
    reader = open_store(path).split("train")
    return next(
        row for row in range(reader.rows) if reader.samples[reader.source_index[row]].path == WHITE
    )


def read(path: Path, rows: list[int]) -> np.ndarray:
    """Rows of train as they are stored, but for the scales of int8."""
    store = open_store(path)
    reader = store.split("train")
    out = np.zeros((2, len(rows), *store.spec.shape[1:]), reader.raw_dtype)
    scales = np.zeros(out.shape[:3], np.float16) if store.spec.scale_bytes else None
    reader.read_into(np.array(rows), (2, 11), out, scales)
    return out


@pytest.mark.parametrize(("calibration_rows", "value"), [(1, torch.nan), (512, torch.inf)])
def test_what_autocast_overflows_is_computed_in_float32_and_nothing_else_is(
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    calibration_rows: int,
    value: float,
) -> None:
    changes = {"amp_dtype": "bfloat16", "calibration_rows": calibration_rows}
    clean = tiny_config(pictures, tmp_path / "clean.zarr", **changes)
    extract(clean)
    config = tiny_config(pictures, tmp_path / "s.zarr", **changes)
    overflow(monkeypatch, value, in_autocast)
    assert extract(config)["skipped"] == 0
    row = white_row(config.store)
    exact = gather_inputs(config.model_copy(update={"amp_dtype": "none"})).backbone
    wanted = exact(torch.full((1, 32, 32, 3), 255, dtype=torch.uint8))[1][0]
    found = read(config.store, [row])
    np.testing.assert_array_equal(found[1, 0], wanted.numpy().astype(np.float16))
    np.testing.assert_array_equal(found[0], read(clean.store, [row])[0])
    assert not np.array_equal(found[1], read(clean.store, [row])[1])
    others = [other for other in range(15) if other != row]
    np.testing.assert_array_equal(read(config.store, others), read(clean.store, others))
    assert verify_store(config.store) == []


def test_int8_of_what_is_computed_again_is_near_to_it(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overflow(monkeypatch, torch.inf, in_autocast)
    changes = {"amp_dtype": "bfloat16", "store_dtype": "int8", "calibration_rows": 512}
    config = tiny_config(pictures, tmp_path / "s.zarr", **changes)
    extract(config)
    row, store = white_row(config.store), open_store(config.store)
    calibration = store.calibration((2, 11))
    assert calibration.channel is not None
    raw, scales = np.zeros((2, 1, 5, 192), np.int8), np.zeros((2, 1, 5), np.float16)
    store.split("train").read_into(np.array([row]), (2, 11), raw, scales)
    exact = gather_inputs(config.model_copy(update={"amp_dtype": "none"})).backbone
    wanted = exact(torch.full((1, 32, 32, 3), 255, dtype=torch.uint8))[1][0].numpy()
    step = scales[1, 0, :, None].astype(np.float32) * calibration.channel[1]
    found = raw[1, 0] * step + calibration.mean[1]
    assert (np.abs(found - wanted) <= 0.51 * step + 1e-5).all()


def test_a_row_that_does_not_fit_is_skipped_with_its_reason_and_is_no_part_of_statistics(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overflow(monkeypatch, torch.nan, always)
    changes = {"on_nonfinite": "skip", "store_dtype": "float32", "calibration_rows": 512}
    config = tiny_config(pictures, tmp_path / "s.zarr", **changes)
    result = extract(config)
    row, store = white_row(config.store), open_store(config.store)
    status = store.split("train").status
    assert (np.flatnonzero(status != 1).tolist(), status[row]) == ([row], 12)
    assert not read(config.store, [row]).any()
    (line,) = csv.DictReader(Path(result["skipped_csv"]).read_text().splitlines())
    assert (line["path"], line["code"], line["message"]) == (
        *(WHITE, "NONFINITE"),
        "features at tap 11 do not fit float32",
    )
    whole = read(config.store, [other for other in range(15) if other != row]).astype(np.float64)
    statistics = store.calibration((2, 11))
    np.testing.assert_allclose(statistics.mean, whole.mean((1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(statistics.std, whole.std((1, 2)), rtol=1e-5, atol=1e-6)
    assert verify_store(config.store) == []
    with pytest.raises(SkippedError, match="1 of 18 samples were skipped"):
        check_skips(config, result)


@pytest.mark.parametrize("when", [always, in_autocast])
def test_a_store_with_such_rows_does_not_depend_on_who_wrote_them_when(
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    when: Callable[[ViTBackbone], bool],
) -> None:
    overflow(monkeypatch, torch.inf, when)
    changes = {"on_nonfinite": "skip", "amp_dtype": "bfloat16", "calibration_rows": 512}
    config = tiny_config(pictures, tmp_path / "s.zarr", **changes)
    extract(config)
    whole = tree(config.store)
    shard = white_row(config.store) // 4
    (config.store / layout.SEALED_OBJECT).unlink()
    (config.store / layout.commit_object("train", shard)).unlink()
    # Nothing of calibration is kept this time.
    assert extract(config)["computed_rows"] == min(4, 15 - 4 * shard)
    assert tree(config.store) == whole


def test_a_row_that_must_fit_ends_the_run_and_names_itself_and_the_way_out(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overflow(monkeypatch, torch.inf, always)
    said = rf"{WHITE}: its features at tap 11 do not fit float16; .*--on-nonfinite skip"
    for rows in (1, 512):
        config = tiny_config(pictures, tmp_path / f"{rows}.zarr", calibration_rows=rows)
        with pytest.raises(InputError, match=said) as caught:
            extract(config.model_copy(update={"amp_dtype": "bfloat16"}))
        assert caught.value.exit_code == 3


def test_a_row_that_has_other_taps_already_is_not_skipped_any_more(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overflow(monkeypatch, torch.inf, always)
    config = tiny_config(pictures, tmp_path / "s.zarr", taps="2", on_nonfinite="skip")
    assert extract(config)["skipped"] == 0
    more = config.model_copy(update={"taps": "11", "extend": True})
    with pytest.raises(InputError, match=rf"{WHITE}: .* it was stored when other taps"):
        extract(more)
    assert open_store(config.store).spec.taps == (2,)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_what_was_computed_in_float32_is_so_again_where_a_store_is_recomputed(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: StoreDtype
) -> None:
    overflow(monkeypatch, torch.inf, in_autocast)
    changes = {"amp_dtype": "bfloat16", "store_dtype": dtype, "calibration_rows": 512}
    config = tiny_config(pictures, tmp_path / "s.zarr", **changes)
    extract(config)
    everything = RecomputeRequest(config.store, 99, pictures, "random", 0, "cpu")
    found = recompute_rows(everything)
    assert (found["rows"], found["not_compared"], found["failed"]) == (18, 0, 0)
    overflow(monkeypatch, torch.inf, always)
    (failure,) = recompute_rows(everything)["failures"]
    assert failure["path"] == WHITE
    assert failure["reason"] == f"its features do not fit {dtype} now"
