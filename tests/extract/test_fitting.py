"""Claims of losa.extract.fitting."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from losa.errors import ResourceError
from losa.extract.backbones import Backbone, BackboneRequest, build_backbone
from losa.extract.fitting import best_batch, fitted_batch, largest_fitting, out_of_memory, rate_of
from losa.extract.vit import ViTBackbone


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    request = BackboneRequest("vit_tiny_patch16_224", "random", 32, "2,11")
    return build_backbone(request, device=torch.device("cpu"), amp_dtype=None)


def device_of(most: int, fastest: int) -> tuple[Callable[[int], float | None], list[int]]:
    """A device of ``most`` images that is no faster beyond ``fastest``; what it was asked."""
    asked: list[int] = []

    def rate(batch: int) -> float | None:
        asked.append(batch)
        return None if batch > most else float(min(batch, fastest))

    return rate, asked


@pytest.mark.parametrize(
    ("memory", "fastest", "limit", "found"),
    [
        (10_000, 64, 1024, 64),
        (100, 10_000, 1024, 64),
        (10_000, 10_000, 1024, 1024),
        (10_000, 10_000, 40, 32),
        (10_000, 10_000, 7, 7),
        (5, 10_000, 1024, 4),
        (1, 10_000, 1024, 1),
        (0, 10_000, 1024, None),
    ],
)
def test_the_batch_doubles_until_memory_or_speed_ends(
    memory: int, fastest: int, limit: int, found: int | None
) -> None:
    rate, asked = device_of(memory, fastest)
    assert best_batch(rate, limit) == found
    assert max(asked) <= limit


def test_the_largest_that_fits_is_looked_for_by_halves() -> None:
    rate, asked = device_of(20, 1)
    assert largest_fitting(rate, 96) == 12
    assert asked == [96, 48, 24, 12]
    assert largest_fitting(rate, 0) is None


def hold_at_most(monkeypatch: pytest.MonkeyPatch, images: int) -> None:
    """A backbone that is out of memory with more images than that."""
    forward = ViTBackbone.__call__

    def limited(self: ViTBackbone, pixels: torch.Tensor) -> list[torch.Tensor]:
        if len(pixels) > images:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, pixels)

    monkeypatch.setattr(ViTBackbone, "__call__", limited)


def test_rates_are_measured_where_memory_suffices(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold_at_most(monkeypatch, 2)
    rate = rate_of(backbone)
    assert (rate(2) or 0) > 0
    assert rate(3) is None


def test_one_image_that_does_not_fit_is_exit_6(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold_at_most(monkeypatch, 0)
    with pytest.raises(ResourceError, match="not even one image fits the memory of cpu") as caught:
        fitted_batch(backbone, 64)
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (3, r"--batch-size: 8 images do not fit .*, 2 were measured to fit; .*--overwrite"),
        (0, r"--batch-size: 8 images do not fit .*, and none were measured to fit; .*--img-size"),
    ],
)
def test_memory_that_runs_out_later_is_exit_6_and_names_what_fits(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, images: int, said: str
) -> None:
    hold_at_most(monkeypatch, images)
    pixels = torch.zeros(8, 32, 32, 3, dtype=torch.uint8)
    with pytest.raises(ResourceError, match=said) as caught, out_of_memory(backbone, 8):
        backbone(pixels)
    assert caught.value.exit_code == 6
    assert "\n" not in str(caught.value)
