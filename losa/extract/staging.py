"""Between host and device: pixels up, encoded planes down, without stopping the device.

On CUDA both directions have a stream and a ring of pinned buffers of their own, which are reused
batch after batch; events say who may touch the bytes. On the CPU nothing is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Float16, Float32, Shaped, UInt8
from torch import Tensor

from losa.precision import Encoded, encode, magnitudes
from losa.store.plan import Plan

USUAL_DEPTH: Final = 3
"""Batches on their way to a shard: one that is written, one behind it, and one that is computed."""


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
        depth: batches that may be on their way down at once. On CUDA one that was encoded must be
            done with before the ``depth``-th after it is, which takes its buffers.
    """

    def __init__(
        self,
        plan: Plan,
        device: torch.device,
        quantiser: Float32[np.ndarray, "k 2 d"] | None = None,
        *,
        depth: int = USUAL_DEPTH,
    ) -> None:
        self._dtype = plan.spec.dtype
        self._exponents = plan.exponents
        self._quantisers: list[Tensor | None] = [None] * len(plan.exponents)
        if quantiser is not None:
            self._quantisers = list(torch.from_numpy(quantiser).to(device))
        self._lanes = _Lanes(device, depth) if device.type == "cuda" else None

    def upload(self, pixels: UInt8[np.ndarray, "b ... h w 3"]) -> UInt8[Tensor, "b ... h w 3"]:
        """Pixels on the device."""
        host = torch.from_numpy(pixels)
        return host if self._lanes is None else self._lanes.up(host)

    def encode(self, planes: Sequence[Float[Tensor, "b l d"]]) -> EncodedBatch:
        """Turn planes into the store's dtype on the device and start their way to the host."""
        stored, absmax = [], []
        taps = zip(planes, self._exponents, self._quantisers, strict=True)
        for plane, exponent, quantiser in taps:
            encoded = encode(plane, self._dtype, exponent, quantiser)
            stored.append(Encoded(encoded.values.contiguous(), encoded.scales))
            absmax.append(magnitudes(plane, encoded, exponent))
        if self._lanes is None:
            return EncodedBatch(stored, torch.stack(absmax), None)
        return self._lanes.down(stored, torch.stack(absmax))


class _Lanes:
    """The two streams of one CUDA device, and their rings of pinned buffers."""

    def __init__(self, device: torch.device, depth: int) -> None:
        self._device = device
        self._up = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's stubs
        self._down = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's stubs
        self._uploads = [_Slot(_event()) for _ in range(depth)]
        self._downloads = [_Slot(_event()) for _ in range(depth)]
        self._sent_up = self._sent_down = 0

    def up(self, host: UInt8[Tensor, "b ... h w 3"]) -> UInt8[Tensor, "b ... h w 3"]:
        """Copy pixels to the device, beside whatever it computes."""
        slot = self._uploads[self._sent_up % len(self._uploads)]
        self._sent_up += 1
        # The device may still be reading what this buffer held ``depth`` batches ago.
        slot.copied.synchronize()
        pinned = slot.buffer(0, host)
        pinned.copy_(host)
        compute = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._up):
            moved = pinned.to(self._device, non_blocking=True)
            slot.copied.record(self._up)
        compute.wait_event(slot.copied)
        moved.record_stream(compute)
        return moved

    def down(self, planes: Sequence[Encoded], absmax: Float[Tensor, "k b"]) -> EncodedBatch:
        """Start copying planes to pinned buffers; those of ``depth`` batches ago are done with."""
        slot = self._downloads[self._sent_down % len(self._downloads)]
        self._sent_down += 1
        self._down.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._down):
            host = [
                Encoded(
                    self._landed(slot, 2 * tap, plane.values),
                    None if plane.scales is None else self._landed(slot, 2 * tap + 1, plane.scales),
                )
                for tap, plane in enumerate(planes)
            ]
            largest = self._landed(slot, -1, absmax)
            slot.copied.record(self._down)
        return EncodedBatch(host, largest, slot.copied)

    def _landed(self, slot: _Slot, number: int, tensor: Tensor) -> Tensor:
        host = slot.buffer(number, tensor)
        host.copy_(tensor, non_blocking=True)
        # Its memory is the computing stream's, and must not be handed out before it is copied.
        tensor.record_stream(self._down)
        return host


@dataclass(frozen=True, slots=True, eq=False)
class _Slot:
    """Pinned buffers of one batch, and the event after which their last copy is done."""

    copied: torch.cuda.Event
    _buffers: dict[int, Tensor] = field(default_factory=dict)

    def buffer(self, number: int, like: Tensor) -> Tensor:
        """The pinned buffer of that number, made when it is first asked for, or another shape."""
        found = self._buffers.get(number)
        if found is None or found.shape != like.shape or found.dtype != like.dtype:
            found = torch.empty(like.shape, dtype=like.dtype, pin_memory=True)
            self._buffers[number] = found
        return found


def _event() -> torch.cuda.Event:
    event: torch.cuda.Event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's stubs
    return event
