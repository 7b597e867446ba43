"""Some time steps of a longer clip: other ones every epoch while training, else the middle ones.

The store keeps every step, so what a video loader draws anew for each epoch, the moments of a clip
that a network sees, can be drawn from cached features too. What is drawn depends on torch's random
numbers alone, which a run seeds at every step: a resume draws what was drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from losa.adapt.options import SideOptions
from losa.errors import MismatchError, UsageError
from losa.features import TokenGrid
from losa.precision import EncodedPlanes

Planes = EncodedPlanes | Iterable[Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """Planes of which a window has taken its steps already."""

    planes: Float[Tensor, "k b l d"]


class ClipWindow:
    """Takes ``frames`` time steps of every sample, in ascending order, before an adaptor sees it.

    With a stride they are so far apart, and the first of them is drawn; without one the clip falls
    into as many parts, nearly equal, and one step of each is drawn. The middle ones are those of
    the middle start, or the middle of every part. A step's prefix tokens go with it, a clip's stay.

    Args:
        grid: of the planes as they come.
        frames: time steps that are taken.
        stride: steps from one to the next, or ``None``.

    Raises:
        UsageError: the clip is not as long.

    Example:
        >>> ClipWindow(TokenGrid(2, 2, time=8), frames=2).middle
        (1, 5)
        >>> ClipWindow(TokenGrid(2, 2, time=8), frames=3, stride=2).middle
        (1, 3, 5)
    """

    def __init__(self, grid: TokenGrid, frames: int, stride: int | None = None) -> None:
        needed = frames if stride is None else (frames - 1) * stride + 1
        if needed > grid.time:
            what = f"{frames} steps over {needed} do not fit into the features' {grid.time}"
            flag = "--clip-frames" if stride is None else "--clip-frames, --clip-stride"
            raise UsageError(flag, what, "give fewer")
        self.grid = grid.with_time(frames)
        self._whole = grid
        self._frames = frames
        self._stride = stride
        self._slack = grid.time - needed
        # Of the parts, where each begins and, last, where all end.
        self._bounds = [part * grid.time // frames for part in range(frames + 1)]

    @property
    def middle(self) -> tuple[int, ...]:
        """The steps that are seen while not training."""
        if self._stride is not None:
            first = self._slack // 2
            return tuple(range(first, first + self._frames * self._stride, self._stride))
        return tuple((first + stop - 1) // 2 for first, stop in pairwise(self._bounds))

    def drawn(self, batch: int) -> Int64[Tensor, "b t"]:
        """Steps of each sample of a batch, from torch's random numbers on the CPU."""
        if self._stride is not None:
            first = torch.randint(self._slack + 1, (batch, 1), device="cpu")
            return first + torch.arange(self._frames, device="cpu") * self._stride
        bounds = torch.tensor(self._bounds, device="cpu")
        shares = torch.rand(batch, self._frames, dtype=torch.float64, device="cpu")
        return bounds[:-1] + (shares * bounds.diff()).long()

    def tokens(self, steps: Int64[Tensor, "b t"]) -> Int64[Tensor, "b l"]:
        """The tokens of some steps of each sample, as they lie in a plane of the window's grid."""
        whole, batch = self._whole, len(steps)
        patches = whole.prefix + _each_of(steps, whole.positions)
        if whole.is_prefix_per_step:
            return torch.cat([_each_of(steps, whole.step_prefix), patches], dim=1)
        prefix = torch.arange(whole.prefix, device="cpu").expand(batch, -1)
        return torch.cat([prefix, patches], dim=1)

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Replace the planes that a module is given: torch's hook before a forward."""
        planes, *others = args
        if isinstance(planes, Taken):
            return planes.planes, *others
        return self.taken(planes, is_drawn=module.training), *others

    def taken(self, planes: Planes, *, is_drawn: bool) -> EncodedPlanes | Iterator[Tensor]:
        """The planes at some of their steps, one after another, or as they were encoded.

        Raises:
            MismatchError: a plane has other tokens than the grid.
        """
        if not isinstance(planes, EncodedPlanes):
            return self._each_taken(planes, is_drawn=is_drawn)
        return _rows_of(planes, self._index(planes.raw[0], is_drawn=is_drawn))

    def _each_taken(self, planes: Iterable[Tensor], *, is_drawn: bool) -> Iterator[Tensor]:
        index = None
        for plane in planes:
            # Once: all taps of a sample are of the same steps.
            index = self._index(plane, is_drawn=is_drawn) if index is None else index
            yield _rows(plane, index)

    def blended(
        self, planes: EncodedPlanes, others: Int64[Tensor, "b"], share: float
    ) -> Float[Tensor, "k b l d"]:
        """Drawn steps of ``share`` of every sample and of the same steps of another one.

        Raises:
            MismatchError: a plane has other tokens than the grid.
        """
        tokens = self._drawn_tokens(planes.raw[0], is_drawn=True).to(others.device)
        own, their = (
            _rows_of(planes, _placed(tokens, samples, self._whole.num_tokens)).decoded()
            for samples in (torch.arange(len(others), device=others.device), others)
        )
        return torch.lerp(their, own, share)

    @property
    def is_short(self) -> bool:
        """Whether two windows have fewer steps than the clip."""
        return 2 * self._frames < self._whole.time

    def _index(self, plane: Shaped[Tensor, "b l d"], *, is_drawn: bool) -> Int64[Tensor, "b ..."]:
        """Places of the tokens among those of all samples of a batch."""
        tokens = self._drawn_tokens(plane, is_drawn=is_drawn)
        samples = torch.arange(len(plane), device=plane.device)
        return _placed(tokens, samples, self._whole.num_tokens)

    def _drawn_tokens(
        self, plane: Shaped[Tensor, "b l d"], *, is_drawn: bool
    ) -> Int64[Tensor, "b ..."]:
        """The tokens of each sample that are seen, on the plane's device."""
        batch, tokens, _ = plane.shape
        if tokens != self._whole.num_tokens:
            raise MismatchError(
                "planes",
                f"have {tokens} tokens, and the clips {self._whole.num_tokens}",
                "use features of the run's kind",
            )
        steps = self.drawn(batch) if is_drawn else torch.tensor(self.middle).expand(batch, -1)
        found = self.tokens(steps)
        if plane.device.type != "cuda":
            return found.to(plane.device)
        # From pinned memory, or else the host would wait for the device.
        return found.pin_memory().to(plane.device, non_blocking=True)


def blended(
    module: nn.Module,
    planes: Float[Tensor, "k b l d"] | EncodedPlanes,
    others: Int64[Tensor, "b"],
    share: float,
) -> Float[Tensor, "k b l d"] | Taken:
    """``share`` of every sample with the rest of another: what mixup lets a network see.

    Of clips of which the network sees a short window, nothing but that is decoded.

    Source: mixup (arXiv 1710.09412), section 2.
    """
    window = getattr(module, "window", None)
    if isinstance(planes, EncodedPlanes):
        if isinstance(window, ClipWindow) and window.is_short:
            return Taken(window.blended(planes, others, share))
        planes = planes.decoded()
    return torch.lerp(planes[:, others], planes, share)


def window_of(grid: TokenGrid, options: SideOptions) -> ClipWindow | None:
    """The window that the options ask for, if any.

    Raises:
        UsageError: the grid has fewer steps.
    """
    if options.clip_frames is None:
        return None
    return ClipWindow(grid, options.clip_frames, options.clip_stride)


def _each_of(steps: Int64[Tensor, "b t"], count: int) -> Int64[Tensor, "b l"]:
    """``count`` tokens for each of the steps, numbered from the first step's first one."""
    return (steps[..., None] * count + torch.arange(count, device="cpu")).flatten(1)


def _rows(plane: Shaped[Tensor, "b ..."], index: Int64[Tensor, "b l"]) -> Tensor:
    """Tokens of a plane, or of its scales, by their places; whole rows are copied."""
    found = plane.flatten(0, 1).index_select(0, index.flatten())
    return found.view(*index.shape, *plane.shape[2:])


def _rows_of(planes: EncodedPlanes, index: Int64[Tensor, "b l"]) -> EncodedPlanes:
    """Tokens of encoded planes by their places, with their scales."""
    scales = planes.token_scales
    taken = None if scales is None else torch.stack([_rows(each, index) for each in scales])
    raw = torch.stack([_rows(plane, index) for plane in planes.raw])
    return replace(planes, raw=raw, token_scales=taken)


def _placed(
    tokens: Int64[Tensor, "b l"], samples: Int64[Tensor, "b"], count: int
) -> Int64[Tensor, "b l"]:
    """Where tokens of some samples lie among all tokens of a batch."""
    return tokens + samples[:, None] * count
