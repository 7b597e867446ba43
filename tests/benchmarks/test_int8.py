"""Claims of benchmarks.int8."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import int8, record, suite, tasks
from losa.extract.run import extract
from losa.features import StoreDtype
from tests.extract.picture_folder import picture_folder, tiny_config


def result(dtype: str, *tests: float) -> suite.Result:
    mean = sum(tests) / len(tests)
    return suite.Result(dtype, "losa", mean, None, 0.5, 1, 1.0, 1, 1e-3, 0.0, tests)


NOISE = [int8.Noise(2, 41.0, 37.0, 30.0), int8.Noise(5, 45.0, 36.5, 35.0)]
SIZES: dict[StoreDtype, int] = {"float32": 4000, "float16": 2000, "int8": 1004}
RESULTS = {"float16": result("float16", 0.9, 0.92), "int8": result("int8", 0.902, 0.918)}


def test_signal_to_noise_over_batches_is_that_of_everything() -> None:
    draw = np.random.default_rng(0)
    true = draw.normal(3.0, 1.0, (7, 4, 40)).astype("f4") * np.linspace(0.1, 9, 40, dtype="f4")
    found = true + draw.normal(0, 0.01, true.shape).astype("f4")
    sums = int8.NoiseSums(40)
    for start in (0, 3, 6):
        sums.add(true[start : start + 3], found[start : start + 3])
    error = found.astype("f8") - true
    tokens = 10 * np.log10((true.astype("f8") ** 2).sum(-1) / (error**2).sum(-1))
    power = (error**2).mean((0, 1))
    channels = 10 * np.log10((true.astype("f8") ** 2).mean((0, 1)) / power)
    centred = 10 * np.log10(true.astype("f8").var((0, 1)) / power)
    noise = sums.noise(5)
    assert noise.tap == 5
    assert noise.median_token == pytest.approx(np.median(tokens), abs=0.01)
    assert noise.channel_5th == pytest.approx(np.percentile(channels, 5), abs=0.01)
    assert noise.centred_channel_5th == pytest.approx(np.percentile(centred, 5), abs=0.01)


def test_the_worst_tap_and_the_whole_trees_count() -> None:
    found = int8.summary(SIZES, NOISE, RESULTS)
    assert found["int8_over_float16"] == 0.502
    assert (found["median_token_db"], found["channel_5th_db"]) == (41.0, 36.5)
    assert found["top1_change_points"] == pytest.approx(0.0)
    assert found["top1_change_error"] == pytest.approx(0.2)
    assert all(found["hits"].values())


@pytest.mark.parametrize(
    ("name", "sizes", "noise", "ours"),
    [
        ("bytes", {**SIZES, "int8": 1011}, NOISE, (0.9, 0.92)),
        ("median_token", SIZES, [int8.Noise(2, 39.9, 37.0, 30.0)], (0.9, 0.92)),
        ("channel_5th", SIZES, [int8.Noise(2, 40.0, 35.9, 30.0)], (0.9, 0.92)),
        ("top1", SIZES, NOISE, (0.897, 0.917)),
    ],
)
def test_each_missed_target_shows(
    name: str, sizes: dict[StoreDtype, int], noise: list[int8.Noise], ours: tuple[float, float]
) -> None:
    found = int8.summary(sizes, noise, {**RESULTS, "int8": result("int8", *ours)})
    assert [target for target, hit in found["hits"].items() if not hit] == [name]


def test_one_seed_has_no_standard_error() -> None:
    results = {"float16": result("float16", 0.9), "int8": result("int8", 0.901)}
    found = int8.summary(SIZES, NOISE, results)
    assert found["top1_change_error"] is None
    assert found["hits"]["top1"]


@pytest.mark.parametrize("argv", [["--images", "10"], ["--seeds", "0"]])
def test_too_little_to_measure_costs_one_line_and_exit_code_2(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert int8.main(argv) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_last_line_is_the_document_that_is_also_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = picture_folder(tmp_path / "pictures", {"train": 3, "test": 2})
    stores: dict[StoreDtype, Path] = {}
    for dtype in int8.DTYPES:
        stores[dtype] = tmp_path / f"{dtype}.zarr"
        extract(tiny_config(pictures, stores[dtype], store_dtype=dtype))
    monkeypatch.setattr(int8, "extracted", lambda _: stores)
    monkeypatch.setattr(tasks.Bench, "measure", lambda bench, *_: result(bench.task, 0.9, 0.9))
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    assert int8.main([]) == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert document == json.loads((tmp_path / "int8.json").read_text())
    assert [noise["tap"] for noise in document["noise"]] == [2, 11]
    assert 35 < document["median_token_db"] < 60
    assert document["bytes"]["int8"] == int8.tree_bytes(stores["int8"])


def test_a_part_of_the_pictures_has_the_shares_of_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[dict[str, int]] = []
    monkeypatch.setattr(int8, "fetch", lambda *_: tmp_path)
    monkeypatch.setattr(int8, "split_tree", lambda _, __, counts: asked.append(counts))
    monkeypatch.setattr(int8, "prepare", lambda _: tmp_path)
    monkeypatch.setattr(int8, "losa", lambda *_: {})
    int8.extracted(int8.options_of(["--images", "200", "--out", str(tmp_path)]))
    assert asked == [{"train": 80, "val": 20, "test": 100}]
