"""A frozen image transformer run over every frame of a clip: one plane of all frames for each tap.

The frames do not see each other here; whatever mixes them over time is trained later. So what is
stored of a frame does not depend on its clip.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from losa.extract.tokens import Pooling
from losa.extract.transforms import Preprocessing
from losa.extract.vit import ViTBackbone
from losa.features import FeatureSpec, TokenGrid

FRAMES_AT_ONCE: Final = 64
"""Frames of one forward: what its activations need does not grow with batch or clip."""


def clip_grid(frame: TokenGrid, frames: int) -> TokenGrid:
    """Grid of a clip whose frames have this one each.

    Example:
        >>> clip_grid(TokenGrid(16, 16, prefix=1), 8).num_tokens
        2056
    """
    prefix = frames * frame.prefix
    return TokenGrid(frame.height, frame.width, frames, prefix, is_prefix_per_step=True)


@dataclass(frozen=True, eq=False)
class FrameBackbone:
    """A frozen image transformer that turns clips into one plane for each tap.

    A plane holds the prefix tokens of all frames, those of the first frame first, then the patches
    of all frames: what the image transformer gives for each of them, as the token policy leaves it.
    ``frame`` keeps all tokens of a frame, or means over its patches where ``pool`` takes none over
    time.
    """

    frame: ViTBackbone
    spec: FeatureSpec
    preprocessing: Preprocessing
    pool: Pooling
    frames_at_once: int = FRAMES_AT_ONCE

    @property
    def name(self) -> str:
        """The timm name with its tag."""
        return self.frame.name

    @property
    def weights_digest(self) -> str:
        """Sha256 of the image transformer's tensors."""
        return self.frame.weights_digest

    @property
    def depth(self) -> int:
        """Blocks of the image transformer, which are the taps there are."""
        return self.frame.depth

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.frame.device

    def with_taps(self, taps: tuple[int, ...]) -> FrameBackbone:
        """The same network read at other taps; its weights are shared."""
        return replace(self, frame=self.frame.with_taps(taps), spec=self.spec.with_taps(taps))

    def in_float32(self) -> FrameBackbone | None:
        """The same network without autocast; ``None`` where there is none."""
        frame = self.frame.in_float32()
        return None if frame is None else replace(self, frame=frame)

    @torch.no_grad()
    def __call__(self, pixels: UInt8[Tensor, "b t h w 3"]) -> list[Float[Tensor, "b l d"]]:
        """One plane for each tap, in ascending depth, on the backbone's device.

        Raises:
            LosaError: as :meth:`ViTBackbone.__call__`.
        """
        b, t = pixels.shape[:2]
        grid = clip_grid(self.frame.spec.grid, t)
        planes: list[Tensor] = []
        for clips, steps in _chunks(b, t, self.frames_at_once):
            found = self.frame(pixels[clips, steps].flatten(0, 1))
            if not planes:
                shape = b, grid.num_tokens, self.spec.channels
                planes = [one.new_empty(shape) for one in found]
            for plane, part in zip(planes, found, strict=True):
                _put(plane, part, (clips, steps), grid)
            del found
        return [self.pool(plane) for plane in planes]


def _chunks(b: int, t: int, most: int) -> Iterator[tuple[slice, slice]]:
    """Clips and their frames, no more than so many frames at once: whole clips where they fit."""
    clips, steps = max(1, most // t), min(t, most)
    for start in range(0, b, clips):
        for first in range(0, t, steps):
            yield slice(start, min(b, start + clips)), slice(first, min(t, first + steps))


def _put(plane: Tensor, frames: Tensor, where: tuple[slice, slice], grid: TokenGrid) -> None:
    """Put the tokens of some frames where they belong in the plane of their clips."""
    clips, steps = where
    own = torch.unflatten(frames, 0, (clips.stop - clips.start, steps.stop - steps.start))
    each = grid.step_prefix
    prefix = torch.unflatten(plane[:, : grid.prefix], 1, (grid.time, each)) if each else None
    patches = torch.unflatten(plane[:, grid.prefix :], 1, (grid.time, grid.positions))
    if prefix is not None:
        prefix[clips, steps] = own[:, :, :each]
    patches[clips, steps] = own[:, :, each:]
