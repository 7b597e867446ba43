"""Between host and device: pixels up, encoded planes down, without stopping the device.

On CUDA both directions use pinned buffers, and the way down has a stream of its own; an event says
when the host may touch the bytes. On the CPU nothing is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from losa.precision import encode, magnitudes
from losa.store.plan import Plan


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """Planes in the store's dtype on their way to the host; see :meth:`wait`."""

    planes: list[Shaped[Tensor, "b l d"]]
    absmax: Float[Tensor, "k b"]
    arrived: torch.cuda.Event | None

    def wait(self) -> tuple[list[np.ndarray], np.ndarray]:
        """The planes ``[b l d]`` and magnitudes ``[k b]`` as host arrays, once they have arrived.

        bfloat16 planes are its bits, as uint16.
        """
        if self.arrived is not None:
            self.arrived.synchronize()
        arrays = [plane.numpy() for plane in self.planes]
        if arrays[0].dtype == np.int16:
            arrays = [array.view(np.uint16) for array in arrays]
        return arrays, self.absmax.numpy()


class Stage:
    """Moves batches between host and device for one store."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self._dtype = plan.spec.dtype
        self._exponents = plan.exponents
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
        """Cast planes to the store's dtype on the device and start their way to the host."""
        pairs = list(zip(planes, self._exponents, strict=True))
        absmax = torch.stack([magnitudes(plane, self._dtype, exp) for plane, exp in pairs])
        stored = [encode(plane, self._dtype, exp).contiguous() for plane, exp in pairs]
        if self._down is None:
            return EncodedBatch(stored, absmax, None)
        self._down.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._down):
            host = [_to_pinned(tensor, self._down) for tensor in [*stored, absmax]]
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's stubs
            arrived.record(self._down)
        return EncodedBatch(host[:-1], host[-1], arrived)


def _to_pinned(tensor: Tensor, stream: torch.cuda.Stream) -> Tensor:
    # torch's caching host allocator hands the same pinned blocks out again batch after batch.
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    tensor.record_stream(stream)
    return host
