"""Rows whose features are not finite, or do not fit: computed once more in float32, then judged.

Autocast overflows where float32 does not. Such a row is computed again alone, so that what it
becomes depends neither on its neighbours nor on the size of the batch; only the taps that failed
take the new values, so that taps are what they would be without each other. A row that does not fit
then either ends the run or is skipped, as one that cannot be read. Whoever computes features anew,
to hold them against a store or to use them in its stead, mends the same rows in the same way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from losa.errors import InputError
from losa.extract.backbones import Backbone
from losa.extract.decode import DecodeFailure
from losa.extract.images import ImageStatus
from losa.extract.rows import RowBatch
from losa.extract.staging import HostBatch
from losa.features import StoreDtype
from losa.precision import encode, magnitudes, rounded_to
from losa.store import Plan

log = logging.getLogger(__name__)

TODO: Final = "use --store-dtype bfloat16 or float32, check the weights, or use --on-nonfinite skip"
TODO_STORED: Final = "it was stored when other taps were extracted: extract anew, with --overwrite"
"""Of a row that may not be skipped any more: a store's rows are those of all its taps."""


class Misfits:
    """Finds, mends and judges the rows of one plan that do not fit.

    Args:
        plan: taps, dtype and exponents of the rows.
        backbone: what computes them.
        quantiser: mean and scale of each channel of the store, of int8 alone.
        todo: for a split, what to do about a row that must fit; ``None`` where it is skipped.
    """

    def __init__(
        self,
        plan: Plan,
        backbone: Backbone,
        todo: Callable[[str], str | None],
        quantiser: Float32[np.ndarray, "k 2 d"] | None = None,
    ) -> None:
        self._taps = plan.spec.taps
        self._dtype = plan.spec.dtype
        self._exponents = plan.exponents
        self._exact = backbone.in_float32()
        self._todo = todo
        self._quantiser = None if quantiser is None else torch.from_numpy(quantiser)

    def of_planes(
        self, batch: RowBatch, planes: list[Float[Tensor, "b l d"]]
    ) -> list[DecodeFailure]:
        """The rows of a batch whose planes stay infinite or nan; those that do not are mended.

        Raises:
            InputError: there is such a row, and it may not be skipped.
        """
        count = len(batch.samples)
        # Both ends, not magnitudes: these would be copies as large as the planes.
        flat = [plane[:count].flatten(1) for plane in planes]
        largest = torch.stack([torch.maximum(one.amax(1), -one.amin(1)).float() for one in flat])

        def mend(tap: int, position: int, again: Float[Tensor, "1 l d"]) -> float:
            if bool(torch.isfinite(again).all()):
                planes[tap] = planes[tap].float()  # autocast's own dtype may not hold it
                planes[tap][position] = again[0]
                return 0.0
            return float("nan")

        return self._judged(batch, largest.cpu().numpy(), mend)

    def of_stored(self, batch: RowBatch, host: HostBatch) -> list[DecodeFailure]:
        """The rows of an encoded batch that do not fit the store; those that can be are mended.

        Raises:
            InputError: there is such a row, and it may not be skipped.
        """

        def mend(tap: int, position: int, again: Float[Tensor, "1 l d"]) -> float:
            exponent = self._exponents[tap]
            quantiser = None
            if self._quantiser is not None:
                quantiser = self._quantiser[tap].to(again.device)
            encoded = encode(again, self._dtype, exponent, quantiser)
            values = encoded.values.cpu().numpy()
            host.planes[tap][position] = values[0].view(host.planes[tap].dtype)
            if host.scales is not None:
                assert encoded.scales is not None
                host.scales[tap][position] = encoded.scales.cpu().numpy()[0]
            return float(magnitudes(again, encoded, exponent))

        return self._judged(batch, host.absmax[:, : len(batch.samples)], mend)

    def _judged(
        self,
        batch: RowBatch,
        largest: Float[np.ndarray, "k b"],
        mend: Callable[[int, int, Float[Tensor, "1 l d"]], float],
    ) -> list[DecodeFailure]:
        """The rows that do not fit once they have been mended where they can be."""
        wrong = ~np.isfinite(largest)
        wrong[:, [failure.position for failure in batch.decoded.failures]] = False
        if not wrong.any():
            return []
        for position in np.flatnonzero(wrong.any(0)).tolist():
            again = self._again(batch, position)
            for tap in np.flatnonzero(wrong[:, position]).tolist() if again else ():
                wrong[tap, position] = not np.isfinite(mend(tap, position, again[tap][None]))
        return [
            self._failure(batch, position, self._taps[int(np.argmax(wrong[:, position]))])
            for position in np.flatnonzero(wrong.any(0)).tolist()
        ]

    def _again(self, batch: RowBatch, position: int) -> list[Float[Tensor, "l d"]]:
        """The planes of one row in float32; none where that is how they were computed."""
        if self._exact is None:
            return []
        log.info("%s: computed again in float32", batch.samples[position].path)
        return alone(self._exact, torch.from_numpy(batch.decoded.pixels), position)

    def _failure(self, batch: RowBatch, position: int, tap: int) -> DecodeFailure:
        """What a row that does not fit becomes.

        Raises:
            InputError: it must fit.
        """
        todo = self._todo(batch.task.split)
        if todo is not None:
            what = f"its features at tap {tap} do not fit {self._dtype}"
            raise InputError(batch.samples[position].path, what, todo)
        what = f"features at tap {tap} do not fit {self._dtype}"
        return DecodeFailure(position, int(ImageStatus.NONFINITE), what)


class AsStored:
    """Pixels to planes as a store would give them back, mended as extraction mends them.

    Args:
        backbone: read at the store's taps.
        dtype: the store's.
        exponents: of the store's taps.
        quantiser: mean and scale of each channel of the store, of int8 alone.
    """

    def __init__(
        self,
        backbone: Backbone,
        dtype: StoreDtype,
        exponents: Sequence[int],
        quantiser: Float32[np.ndarray, "k 2 d"] | None,
    ) -> None:
        self._backbone = backbone
        self._exact = backbone.in_float32()
        self._dtype = dtype
        self._exponents = exponents
        self._quantisers: list[Tensor | None] = [None] * len(exponents)
        if quantiser is not None:
            self._quantisers = list(torch.from_numpy(quantiser).to(backbone.device))

    def __call__(
        self, pixels: UInt8[Tensor, "b ... h w 3"]
    ) -> tuple[list[Float[Tensor, "b l d"]], Bool[np.ndarray, "k b"]]:
        """The planes of some images, and which of their rows are such as a store can hold."""
        found, largest = [], []
        for tap, plane in enumerate(self._backbone(pixels)):
            back, magnitude = self._rounded(tap, plane)
            found.append(back)
            largest.append(magnitude)
        fits = torch.stack(largest).isfinite().cpu().numpy()
        if self._exact is None:
            return found, fits
        for position in np.flatnonzero(~fits.all(0)).tolist():
            again = alone(self._exact, pixels, position)
            for tap in np.flatnonzero(~fits[:, position]).tolist():
                back, magnitude = self._rounded(tap, again[tap][None])
                found[tap][position] = back[0]
                fits[tap, position] = bool(magnitude.isfinite())
        return found, fits

    def _rounded(
        self, tap: int, plane: Float[Tensor, "b l d"]
    ) -> tuple[Float[Tensor, "b l d"], Float[Tensor, "b"]]:
        return rounded_to(self._dtype, plane, self._exponents[tap], self._quantisers[tap])


def alone(
    exact: Backbone, pixels: UInt8[Tensor, "b ... h w 3"], position: int
) -> list[Float[Tensor, "l d"]]:
    """The planes of one image of a batch, computed without the others."""
    return [plane[0] for plane in exact(pixels[position : position + 1])]
