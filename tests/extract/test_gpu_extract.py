"""Claims of an extraction on CUDA: streams, pinned rings, autocast, encoding on the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from losa.config import ExtractConfig
from losa.errors import MismatchError, ResourceError
from losa.extract.backbones import Backbone, BackboneRequest, build_backbone
from losa.extract.fitting import fitted_batch, out_of_memory, rate_of
from losa.extract.recompute import RecomputeRequest, recompute_rows
from losa.extract.run import extract
from losa.extract.staging import HostBatch, Stage
from losa.features import StoreDtype
from losa.precision import encode
from losa.store import open_store
from losa.store.verify import verify_store
from tests.extract.overflow import in_autocast, overflow
from tests.extract.picture_folder import picture_folder, tiny_config
from tests.store.build import small_plan, tree

pytestmark = pytest.mark.gpu
CUDA = "cuda"
COUNTS = {"train": 7, "val": 2}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("pictures"), COUNTS)


def on_cuda(pictures: Path, path: Path, **changes: object) -> ExtractConfig:
    return tiny_config(pictures, path, device=CUDA, **changes)


def backbone_on(device: str, amp: torch.dtype | None = None, side: int = 32) -> Backbone:
    request = BackboneRequest("vit_tiny_patch16_224", "random", side, "2,11")
    return build_backbone(request, device=torch.device(device), amp_dtype=amp)


@contextmanager
def no_hidden_waits() -> Iterator[None]:
    """Operations that make the host wait for the device are errors here; waits for events are not.

    What torch warns of under this name is what ``.item()``, ``.cpu()`` and ``nonzero`` do.
    """
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def held(host: HostBatch) -> list[np.ndarray]:
    """Copies of everything in a batch: its buffers are used again."""
    return [np.copy(array) for array in (*host.planes, *(host.scales or ()), host.absmax)]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_batches_that_follow_each_other_through_the_rings_arrive_whole(dtype: StoreDtype) -> None:
    plan, depth = replace(small_plan(dtype=dtype), exponents=(0, 3)), 2
    here, there = Stage(plan, torch.device("cpu")), Stage(plan, torch.device(CUDA), depth=depth)
    waiting = []
    for number in range(4 * depth):
        draw = torch.Generator().manual_seed(number)
        planes = [torch.randn(64, 5, 6, generator=draw) for _ in range(2)]
        waiting.append((there.encode([plane.to(CUDA) for plane in planes]), planes))
        if len(waiting) == depth:
            batch, planes = waiting.pop(0)
            for found, wanted in zip(
                held(batch.wait()), held(here.encode(planes).wait()), strict=True
            ):
                np.testing.assert_array_equal(found, wanted)


def test_pixels_are_not_overwritten_before_the_device_has_them() -> None:
    stage, draw = Stage(small_plan(), torch.device(CUDA), depth=2), np.random.default_rng(0)
    batches = [draw.integers(0, 256, (32, 64, 64, 3), np.uint8) for _ in range(8)]
    # The computing stream lags behind all of the copies.
    torch.cuda._sleep(200_000_000)  # type: ignore[no-untyped-call]  # torch's stubs
    moved = [stage.upload(batch) for batch in batches]
    for found, wanted in zip(moved, batches, strict=True):
        np.testing.assert_array_equal(found.cpu().numpy(), wanted)


def test_buffers_on_the_host_are_pinned_and_used_again() -> None:
    stage = Stage(small_plan(), torch.device(CUDA), depth=2)
    planes = [torch.randn(4, 5, 6, device=CUDA) for _ in range(2)]
    batches = [stage.encode(planes) for _ in range(3)]
    for batch in batches:
        batch.wait()
    places = [batch.planes[0].values.data_ptr() for batch in batches]
    assert places[0] == places[2] != places[1]
    assert all(plane.values.is_pinned() for batch in batches for plane in batch.planes)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_nothing_between_upload_and_download_makes_the_host_wait(dtype: StoreDtype) -> None:
    backbone = backbone_on(CUDA, torch.bfloat16)
    plan = replace(small_plan(dtype=dtype), exponents=(0, 0))
    quantiser = np.ones((2, 2, 192), "<f4") if dtype == "int8" else None
    stage = Stage(plan, torch.device(CUDA), quantiser)
    pixels = np.zeros((4, 32, 32, 3), np.uint8)
    stage.encode(backbone(stage.upload(pixels))).wait()  # what is made once is made now
    with no_hidden_waits():
        encoded = stage.encode(backbone(stage.upload(pixels)))
    assert np.isfinite(encoded.wait().absmax).all()


def test_autocast_computes_in_bfloat16_and_stays_near_float32() -> None:
    pixels = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    exact = backbone_on("cpu")(pixels)
    for plane, wanted in zip(
        backbone_on(CUDA, torch.bfloat16)(pixels.to(CUDA)), exact, strict=True
    ):
        distance = (plane.float().cpu() - wanted).norm() / wanted.norm()
        assert 0 < distance < 0.03


def test_int8_on_the_device_is_at_most_one_step_from_int8_on_the_cpu() -> None:
    plane = torch.randn(8, 17, 192, generator=torch.Generator().manual_seed(0))
    quantiser = torch.rand(2, 192, generator=torch.Generator().manual_seed(1)) + 0.5
    here = encode(plane, "int8", 0, quantiser)
    there = encode(plane.to(CUDA), "int8", 0, quantiser.to(CUDA))
    steps = (there.values.cpu().int() - here.values.int()).abs()
    assert steps.max() <= 1
    assert (steps > 0).float().mean() < 1e-3
    assert here.scales is not None
    assert there.scales is not None
    bits = there.scales.cpu().view(torch.int16).int() - here.scales.view(torch.int16).int()
    assert bits.abs().max() <= 1


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_store_is_the_same_bytes_whatever_the_workers(
    pictures: Path, tmp_path: Path, dtype: StoreDtype
) -> None:
    for name, workers in (("a", 0), ("b", 2)):
        path = tmp_path / f"{name}.zarr"
        extract(on_cuda(pictures, path, num_workers=workers, store_dtype=dtype))
        assert verify_store(path) == []
    assert tree(tmp_path / "a.zarr") == tree(tmp_path / "b.zarr")
    plan = open_store(tmp_path / "a.zarr").plan
    assert (plan.numerics.device, plan.numerics.autocast) == (CUDA, "bfloat16")


def test_a_store_of_the_cpu_is_not_gone_on_with_on_cuda(pictures: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    extract(tiny_config(pictures, path))
    with pytest.raises(MismatchError, match=r"device: cuda / cpu"):
        extract(on_cuda(pictures, path))


def test_an_automatic_batch_is_measured_and_no_larger_than_asked_for() -> None:
    backbone = backbone_on(CUDA, torch.bfloat16)
    assert fitted_batch(backbone, 20) == 16
    assert (rate_of(backbone)(16) or 0) > 0


def test_memory_that_runs_out_names_a_batch_that_fits() -> None:
    backbone = backbone_on(CUDA, side=224)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.set_per_process_memory_fraction(min(1.0, (before + 3 * 2**30) / total))
    try:
        pixels = torch.zeros(65_536, 224, 224, 3, dtype=torch.uint8)
        with (
            pytest.raises(ResourceError, match=r"65536 images do not fit .* were measured to fit"),
            out_of_memory(backbone, len(pixels)),
        ):
            backbone(pixels.to(CUDA))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_compiled_forward_is_near_the_plain_one(pictures: Path, tmp_path: Path) -> None:
    extract(on_cuda(pictures, tmp_path / "plain.zarr", store_dtype="float32"))
    extract(on_cuda(pictures, tmp_path / "fast.zarr", store_dtype="float32", compile=True))
    plain, fast = open_store(tmp_path / "plain.zarr"), open_store(tmp_path / "fast.zarr")
    assert fast.plan.numerics.compiled
    taps, rows = plain.spec.taps, np.arange(plain.split("train").rows)
    shape = (len(taps), len(rows), *plain.spec.shape[1:])
    found, wanted = np.zeros(shape, "<f4"), np.zeros(shape, "<f4")
    fast.split("train").read_into(rows, taps, found)
    plain.split("train").read_into(rows, taps, wanted)
    assert np.linalg.norm(found - wanted) < 0.03 * np.linalg.norm(wanted)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_rows_that_autocast_overflows_are_mended_beside_the_forward_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: StoreDtype
) -> None:
    pictures = picture_folder(tmp_path / "d", COUNTS)
    for number in (0, 3):
        Image.new("RGB", (32, 32), (255, 255, 255)).save(pictures / f"train/red/00{number}.png")
    overflow(monkeypatch, torch.inf, in_autocast)
    changes = {"amp_dtype": "bfloat16", "store_dtype": dtype, "calibration_rows": 4}
    config = on_cuda(pictures, tmp_path / "s.zarr", **changes)
    assert extract(config)["skipped"] == 0
    again = config.model_copy(update={"store": tmp_path / "again.zarr"})
    extract(again)
    assert tree(config.store) == tree(again.store)
    found = recompute_rows(RecomputeRequest(config.store, 99, pictures, "random", 0, CUDA))
    assert (found["rows"], found["failed"]) == (3 * sum(COUNTS.values()), 0)
