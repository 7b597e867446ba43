"""One training step of a side network in the ways that are compared, and what it cannot go below.

The step is all that :class:`losa.adapt.trial.Trial` does with a batch: forward, cross-entropy with
smoothing, backward, clip, fused AdamW.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody reads
from torch import Tensor, nn

from losa.adapt.adaptor import LoSA
from losa.adapt.options import SideOptions
from losa.features import FeatureSpec, StoreDtype, TokenGrid
from losa.precision import EncodedPlanes, decode, encode

CLASSES: Final = 10
GEMM: Final = 1024
"""Side of the square matrices whose product tells what a large GEMM reaches.

Not larger: a product that takes longer than a step finds fewer quiet moments on a busy machine,
and a floor that is measured too high flatters.
"""

Logits = Callable[[EncodedPlanes], Tensor]


@dataclass(frozen=True, slots=True)
class Shape:
    """Taps, tokens, channels, batch, rank of all bottlenecks, and time steps of a clip."""

    taps: int
    tokens: int
    channels: int
    batch: int
    rank: int = 8
    steps: int = 1

    @property
    def spec(self) -> FeatureSpec:
        """A spec of that shape with one prefix token, of a clip with one a step."""
        grid = TokenGrid(1, self.tokens - 1, prefix=1)
        if self.steps > 1:
            places = self.tokens // self.steps - 1
            grid = TokenGrid(1, places, self.steps, self.steps, is_prefix_per_step=True)
        return FeatureSpec("random", tuple(range(self.taps)), grid, self.channels)

    @property
    def hidden_bytes(self) -> int:
        """Bytes of one sample's low-rank hidden units, of all mixers."""
        return 4 * self.taps * self.rank * (self.tokens + self.channels)

    def plain_flops(self) -> int:
        """Of a sample's products in the plain module: two branches a mixer, two products each.

        The backward has two for each, but needs no gradient of the first mixer's input.
        """
        one = 2 * self.tokens * self.channels * self.rank
        return (12 * self.taps - 1) * one

    def fused_flops(self) -> int:
        """Of a sample's products in the low-rank form, none of them counted twice.

        Each plane has two in the forward and two in the backward. Each ordered pair of mixings has
        three (one forward, two backward) for each small factor; the pooling counts as a row.
        """
        k, l, d, r = self.taps, self.tokens, self.channels, self.rank  # noqa: E741 -- axis letters
        planes = k * 4 * 2 * l * d * r
        before, at_most = k * (k - 1) // 2, k * (k + 1) // 2
        wide = 3 * 2 * d * r * r * (at_most + 2 * before)
        narrow = 3 * 2 * l * r * r * (at_most + 2 * before)
        pooling = 3 * 2 * k * r * (2 * d + l)
        return planes + wide + narrow + pooling


def batch_of(shape: Shape, dtype: StoreDtype, device: torch.device) -> EncodedPlanes:
    """Random planes as a store of that dtype would give them."""
    generator = torch.Generator().manual_seed(0)
    size = (shape.batch, shape.tokens, shape.channels)
    quantiser = torch.stack([torch.zeros(shape.channels), torch.ones(shape.channels)])
    each = [
        encode(torch.randn(size, generator=generator), dtype, 0, quantiser)
        for _ in range(shape.taps)
    ]
    is_int8 = dtype == "int8"
    scales = [found.scales for found in each if found.scales is not None]
    return EncodedPlanes(
        torch.stack([found.values for found in each]).to(device),
        dtype,
        (0,) * shape.taps,
        torch.stack(scales).to(device) if is_int8 else None,
        quantiser.expand(shape.taps, -1, -1).to(device) if is_int8 else None,
    )


def network(shape: Shape, device: torch.device, *, is_joint: bool = False) -> LoSA:
    """A side network that standardises; the same weights at every call.

    ``is_joint``: of clips too all tokens are mixed at once.
    """
    torch.manual_seed(0)
    options = SideOptions(token_mixing="joint" if is_joint else "auto")
    adaptor = LoSA(shape.spec, shape.rank, CLASSES, options=options)
    statistics = torch.randn(shape.taps, shape.channels), torch.rand(shape.taps, shape.channels)
    adaptor.standardise.load(statistics[0] * 0.1, statistics[1] + 0.5)
    for weight in adaptor.parameters():
        nn.init.normal_(weight, std=0.05)
    return adaptor.to(device)


def decoded_first(logits: Callable[[Tensor], Tensor]) -> Logits:
    """A network that takes planes, behind a decode of the whole batch."""

    def run(planes: EncodedPlanes) -> Tensor:
        return logits(
            decode(
                *(planes.raw, planes.dtype, planes.exponents),
                scales=planes.token_scales,
                quantiser=planes.quantiser,
            )
        )

    return run


class Step:
    """Training steps of ``adaptor`` on one batch, through ``logits``."""

    def __init__(self, adaptor: LoSA, logits: Logits, planes: EncodedPlanes) -> None:
        self.planes = planes
        self._logits = logits
        self._parameters = list(adaptor.parameters())
        self._optimiser = torch.optim.AdamW(self._parameters, lr=1e-4, fused=True)
        count = planes.raw.shape[1]
        self._labels = torch.arange(count, device=planes.raw.device) % CLASSES

    def loss(self) -> Tensor:
        """The loss of the batch."""
        logits = self._logits(self.planes).float()
        return F.cross_entropy(logits, self._labels, label_smoothing=0.1)

    def __call__(self) -> None:
        """One step."""
        self._optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(self.loss())
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimiser.step()

    def saved_bytes(self) -> int:
        """Bytes that autograd keeps for the backward, without the planes and the weights."""
        known = {value.untyped_storage().data_ptr() for value in (self.planes.raw, *self._own())}
        kept: dict[int, int] = {}

        def keep(value: Tensor) -> Tensor:
            storage = value.untyped_storage()
            if storage.data_ptr() not in known:
                kept[storage.data_ptr()] = storage.nbytes()
            return value

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            loss = self.loss()
        torch.autograd.backward(loss)
        return sum(kept.values())

    def _own(self) -> Iterator[Tensor]:
        yield from self._parameters
        if self.planes.token_scales is not None:
            yield self.planes.token_scales


def seconds(run: Callable[[], Any], repeats: int, device: torch.device) -> float:
    """Mean seconds of a call, with what it has started on the device."""
    _wait(device)
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    _wait(device)
    return (time.perf_counter() - start) / repeats


def best_seconds(run: Callable[[], Any], repeats: int, device: torch.device) -> float:
    """Fewest seconds of some calls: of what a floor is made, a disturbed call is no measure."""
    return min(seconds(run, 1, device) for _ in range(repeats))


def copying(planes: EncodedPlanes) -> Callable[[], Any]:
    """A copy of the stored planes: it moves as much as a forward and a backward must read."""
    room = torch.empty_like(planes.raw)
    return lambda: room.copy_(planes.raw)


def multiplying(device: torch.device, dtype: torch.dtype = torch.float32) -> Callable[[], Any]:
    """A product of large matrices."""
    left, right = torch.randn(2, GEMM, GEMM, device=device, dtype=dtype)
    return lambda: left @ right


def profile(run: Callable[[], Any], steps: int = 3, rows: int = 12) -> dict[str, float]:
    """Share of the CPU time that each operation takes itself, the largest first."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    run()
    # The profiler tells of its own life on stderr.
    with contextlib.redirect_stderr(None), torch.profiler.profile(activities=activities) as found:
        for _ in range(steps):
            run()
    events = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return {event.key: round(event.self_cpu_time_total / total, 4) for event in events[:rows]}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
