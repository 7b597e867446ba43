"""Between host and device: pixels up, encoded planes down, without stopping the device.

On CUDA both directions use pinned buffers, and the way down has a stream of its own; an event says
when the host may touch the bytes. On the CPU nothing is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float16, Float32, Shaped, UInt8
from torch import Tensor

from losa.precision import Encoded, encode, magnitudes
from losa.store.plan import Plan


@dataclass(frozen=True, slots=True, eq=False)
class HostBatch:
    """Planes in the store's dtype as host arrays, one a tap; bfloat16 is its bits, as uint16.

    ``scales`` are those of the tokens, of int8 alone; ``absmax`` is what
    :func:`losa.precision.magnitudes` says.
    """

    planes: list[Shaped[np.ndarray, "b l d"]]
    scales: list[Float16[np.ndarray, "b l"]] | None
    absmax: Float[np.ndarray, "k b"]


@dataclass(frozen=True, slots=True, eq=False)
class EncodedBatch:
    """Planes in the store's dtype on their way to the host; see :meth:`wait`."""

    planes: list[Encoded]
    absmax: Float[Tensor, "k b"]
    arrived: torch.cuda.Event | None

    def wait(self) -> HostBatch:
        """The batch on the host, once it has arrived there."""
        if self.arrived is not None:
            self.arrived.synchronize()
        arrays = [plane.values.numpy() for plane in self.planes]
        if arrays[0].dtype == np.int16:
            arrays = [array.view(np.uint16) for array in arrays]
        scales = [plane.scales.numpy() for plane in self.planes if plane.scales is not None]
        return HostBatch(arrays, scales or None, self.absmax.numpy())


class Stage:
    """Moves batches between host and device for one store.

    Args:
        plan: the store's plan.
        device: where planes are computed.
        quantiser: mean and scale of each channel of the store, of int8 alone.
    """

    def __init__(
        self,
        plan: Plan,
        device: torch.device,
        quantiser: Float32[np.ndarray, "k 2 d"] | None = None,
    ) -> None:
        self._dtype = plan.spec.dtype
        self._exponents = plan.exponents
        self._quantisers: list[Tensor | None] = [None] * len(plan.exponents)
        if quantiser is not None:
            self._quantisers = list(torch.from_numpy(quantiser).to(device))
        self._device = device
        self._down = None
        if device.type == "cuda":
            self._down = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's stubs

    def upload(self, pixels: UInt8[np.ndarray, "b h w 3"]) -> UInt8[Tensor, "b h w 3"]:
        """Pixels on the device."""
        host = torch.from_numpy(pixels)
        if self._down is None:
            return host
        return host.pin_memory().to(self._device, non_blocking=True)

    def encode(self, planes: Sequence[Float[Tensor, "b l d"]]) -> EncodedBatch:
        """Turn planes into the store's dtype on the device and start their way to the host."""
        stored, absmax = [], []
        taps = zip(planes, self._exponents, self._quantisers, strict=True)
        for plane, exponent, quantiser in taps:
            encoded = encode(plane, self._dtype, exponent, quantiser)
            stored.append(Encoded(encoded.values.contiguous(), encoded.scales))
            absmax.append(magnitudes(plane, encoded, exponent))
        if self._down is None:
            return EncodedBatch(stored, torch.stack(absmax), None)
        return self._sent(stored, torch.stack(absmax), self._down)

    def _sent(
        self, stored: Sequence[Encoded], absmax: Float[Tensor, "k b"], down: torch.cuda.Stream
    ) -> EncodedBatch:
        down.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(down):
            host = [
                Encoded(
                    _to_pinned(plane.values, down),
                    None if plane.scales is None else _to_pinned(plane.scales, down),
                )
                for plane in stored
            ]
            largest = _to_pinned(absmax, down)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's stubs
            arrived.record(down)
        return EncodedBatch(host, largest, arrived)


def _to_pinned(tensor: Tensor, stream: torch.cuda.Stream) -> Tensor:
    # torch's caching host allocator hands the same pinned blocks out again batch after batch.
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    tensor.record_stream(stream)
    return host
