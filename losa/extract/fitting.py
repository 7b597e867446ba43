"""Which batch a CUDA device takes: measured before a plan is written, or after memory ran out.

A batch is never made smaller silently: it is part of the plan, and features depend on it.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import torch

from losa.errors import ResourceError
from losa.extract.backbones import Backbone
from losa.precision import Encoded, encode

log = logging.getLogger(__name__)

FIRST_BATCH: Final = 16
WORTH: Final = 1.05
"""By how much more rows a second twice the batch must give: below, it only costs memory."""

_WARM_UP: Final = 2
_REPEATS: Final = 3

Rate = Callable[[int], float | None]
"""Rows a second at a batch size; ``None`` where the device has not the memory."""


def best_batch(rate: Rate, most: int) -> int | None:
    """Double a batch from 16, up to ``most``, as long as it fits and is worth it.

    Where 16 do not fit, the largest that does, by halves; ``None`` where not even one image fits.

    Example:
        >>> rates = {16: 100.0, 32: 190.0, 64: 195.0}
        >>> best_batch(rates.get, 1024), best_batch(rates.get, 20), best_batch(rates.get, 8)
        (32, 16, None)
    """
    batch = min(FIRST_BATCH, most)
    found = rate(batch)
    if found is None:
        return largest_fitting(rate, batch // 2)
    while 2 * batch <= most:
        more = rate(2 * batch)
        if more is None or more < WORTH * found:
            break
        batch, found = 2 * batch, more
    return batch


def largest_fitting(rate: Rate, most: int) -> int | None:
    """The largest batch that fits, of ``most``, its half, a quarter and so on."""
    batch = most
    while batch:
        if rate(batch) is not None:
            return batch
        batch //= 2
    return None


def fitted_batch(backbone: Backbone, most: int) -> int:
    """The batch that ``--batch-size auto`` stands for on a CUDA device, by measurement.

    Raises:
        ResourceError: not even one image fits.
    """
    found = best_batch(rate_of(backbone), most)
    if found is None:
        what = f"not even one image fits the memory of {backbone.device}"
        raise ResourceError("--batch-size", what, "use a smaller --img-size, or --device cpu")
    log.info("--batch-size: %d fit %s and are fastest", found, backbone.device)
    return found


def rate_of(backbone: Backbone) -> Rate:
    """Rows a second of forward and encoding on black images, by batch size.

    Calibration holds less: the planes of one batch, and beside them a few samples in float64.
    """
    spec, device = backbone.spec, backbone.device
    quantiser = torch.ones(2, spec.channels, device=device) if spec.dtype == "int8" else None

    def work(batch: int) -> list[Encoded]:
        pixels = torch.zeros(batch, *backbone.preprocessing.shape, dtype=torch.uint8)
        planes = backbone(pixels.to(device))
        return [encode(plane, spec.dtype, 0, quantiser) for plane in planes]

    def rate(batch: int) -> float | None:
        started, on_its_way = 0.0, []
        try:
            for number in range(_WARM_UP + _REPEATS):
                if number == _WARM_UP:
                    _synchronise(device)
                    started = time.perf_counter()
                # Beside the last batch, as in an extraction, where that is still being copied.
                on_its_way = work(batch)
            _synchronise(device)
        except torch.OutOfMemoryError as error:
            _let_go(error)
            return None
        finally:
            del on_its_way
            torch.cuda.empty_cache()
        return _REPEATS * batch / (time.perf_counter() - started)

    return rate


@contextmanager
def out_of_memory(backbone: Backbone, batch: int) -> Iterator[None]:
    """Say of a device whose memory does not suffice for a batch which one it would suffice for.

    Raises:
        ResourceError: it did not suffice.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        _let_go(error)
        fits = largest_fitting(rate_of(backbone), batch // 2)
        raise ResourceError(
            "--batch-size",
            f"{batch} images do not fit the memory of {backbone.device}, "
            + (f"{fits} were measured to fit" if fits else "and none were measured to fit"),
            "free the device; or begin anew with --overwrite and a smaller --batch-size"
            if fits
            else "free the device, or use a smaller --img-size or --device cpu",
        ) from None


def _let_go(error: BaseException) -> None:
    """Free what the frames of an error still hold of the device's memory."""
    traceback.clear_frames(error.__traceback__)
    torch.cuda.empty_cache()


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
