"""Claims of benchmarks.extraction and benchmarks.gpu_extract."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks import extraction, gpu_extract, memory, record
from losa.extract.transforms import Preprocessing
from tests.benchmarks.conftest import Published

ARGV = ["--models", "vit_tiny_patch16_224", "--images", "4", "--img-size", "32", "--rounds", "2"]


def test_an_extraction_is_measured_beside_its_bare_forward(
    published: Published, tmp_path: Path
) -> None:
    more = ["--workers", "0", "--memory-images", "0", "--dir", str(tmp_path)]
    assert extraction.main([*ARGV, *more]) == 0
    found = published("extraction")["models"]["vit_tiny_patch16_224"]
    bare, ours = (found["seconds"][name]["best"] for name in (extraction.BARE, extraction.LOSA))
    assert found["cost"]["best"] == pytest.approx(ours / bare, rel=1e-3)
    assert found["cost"]["target"] == 1.15
    assert found["cost"]["hit"] == (found["cost"]["best"] <= 1.15)
    assert found["rows"] == found["batch_size"] == found["calibration"]["rows"] == 4
    assert not any(path.name.startswith("losa-bench") for path in tmp_path.iterdir())


def test_the_work_of_a_millisecond_is_seen_by_the_processors_seconds() -> None:
    spans = []
    for _ in range(5):
        before, started = extraction.processor_seconds(), time.thread_time()
        while time.thread_time() - started < 0.001:
            pass
        spans.append(extraction.processor_seconds() - before)
    assert all(span >= 0.0009 for span in spans), spans


def test_an_extraction_of_clips_is_measured_with_decoding_outside_the_clock(
    published: Published, tmp_path: Path
) -> None:
    more = ["--video", "--frames", "2", "--dir", str(tmp_path)]
    assert extraction.main([*ARGV, *more]) == 0
    found = published("extraction_video")["models"]["vit_tiny_patch16_224"]
    assert found["cost"]["target"] == 1.15
    assert found["rows"] == 4
    assert found["decode"]["cpu_seconds"] > 0
    assert 0 < found["decode"]["share"] < 1


def test_what_was_decoded_before_comes_back_as_copies_in_its_order() -> None:
    half = (0.5, 0.5, 0.5)
    rules = Preprocessing((2, 2), 1.0, "center", "bicubic", half, half)
    pixels = [torch.full((2, 2, 2, 3), value, dtype=torch.uint8) for value in (1, 2)]
    found = list(extraction.Held(rules, pixels).batches([[Path("a")], [Path("b")]], pad_to=2))
    assert [int(batch.pixels.max()) for batch in found] == [1, 2]
    found[0].pixels[:] = 9
    assert int(pixels[0].max()) == 1


def test_memory_is_that_of_a_tenth_and_of_all_the_images(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    peaks = iter([200 * 10**6, 203 * 10**6])
    stores: list[Path] = []

    def watched(command: tuple[str, ...]) -> int:
        stores.append(Path(command[command.index("--store") + 1]))
        return next(peaks)

    monkeypatch.setattr(memory, "after_imports", lambda _: 190 * 10**6)
    monkeypatch.setattr(memory, "watch", watched)
    monkeypatch.setattr(memory, "draw", lambda *_: None)
    monkeypatch.setattr(extraction, "row_bytes", lambda _: 1000)
    found = extraction.memory_growth(tmp_path, 3)
    assert [store.name for store in stores] == ["images-3.zarr", "images-30.zarr"]
    assert found["growth"] == pytest.approx(0.015)
    assert found["growth_hit"]


def test_images_are_jpegs_of_about_256_pixels(tmp_path: Path) -> None:
    extraction.draw(tmp_path, 3)
    for path in tmp_path.rglob("*.jpg"):
        with Image.open(path) as image:
            assert image.format == "JPEG"
            assert all(200 <= side <= 320 for side in image.size)
    assert len(list(tmp_path.rglob("*.jpg"))) == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device to measure")
def test_without_a_device_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    assert gpu_extract.main([]) == 0
    assert capsys.readouterr().err == "M12: not measured: torch sees no CUDA device here\n"
    assert list(tmp_path.iterdir()) == []
